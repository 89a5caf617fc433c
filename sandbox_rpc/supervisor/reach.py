"""What the guest may reach, as the settings have it, and what this host can do about it."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import libslirp
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.network.policy import Mode, parse_rule
from sandbox_rpc.network.port import check
from sandbox_rpc.network.settings import Route
from sandbox_rpc.network.support import COST, remedy
from sandbox_rpc.protocol.types import Layer


def support() -> libslirp.Support:
    """Whether this host can have a network process; else QEMU's own stack has to do."""
    return libslirp.probe()


def absent(found: libslirp.Support) -> list[Layer]:
    """The wall that is missing where there can be no network process."""
    return [] if found.works else [Layer("network", False, f"{found.detail}; {COST}")]


def remarks(settings: Settings, found: libslirp.Support) -> list[str]:
    """What the user should know about the network before relying on it."""
    said = []
    if not found.works:
        said.append(f"{found.detail}, so {COST}. {remedy()}")
        if settings.network is Network.PROXY:
            said.append("The proxy is out of the guest's reach, so this is as closed as `offline`.")
    if settings.network is not Network.OPEN and (
        settings.allow_addresses or settings.allow_host_ports
    ):
        said.append(f"allow.addresses and allow.host_ports have no effect in `{settings.network}`.")
    return said


def wish(settings: Settings, room: Room, pins: Sequence[tuple[str, int]] = ()) -> Wish:
    """What the settings say about the network; `pins` are the registries' private addresses.

    Raises:
        RuleInvalid, SettingInvalid: they say nonsense.
    """
    rules = tuple(filter(None, settings.allow_addresses.split(",")))
    for rule in rules:
        parse_rule(rule)
    ports = tuple(int(port) for port in settings.allow_host_ports.split(",") if port)
    for port in ports:
        check(port, "allow.host_ports")
    mode = Mode(str(settings.network))
    routes = (Route(str(room.proxy_socket)),) if mode is Mode.PROXY else ()
    if routes:
        room.proxy_socket.parent.mkdir(mode=0o700, exist_ok=True)
    return Wish(
        mode, rules, ports, pins=tuple(pins), routes=routes, namespace=str(settings.box_namespace)
    )
