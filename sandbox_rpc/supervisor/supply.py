"""Where a guest gets packages: the host's own registries, for its identity and its network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from ipaddress import AddressValueError, IPv4Address

import anyio.to_thread
from attrs import evolve, field, frozen

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.guest import packages
from sandbox_rpc.guest.packages import Packages
from sandbox_rpc.host import lookup, registries
from sandbox_rpc.host.registries import Found
from sandbox_rpc.host.registries.url import Kind
from sandbox_rpc.network.address import METADATA, NEVER, obstacle
from sandbox_rpc.network.policy import PROXY, PROXY_PORT
from sandbox_rpc.network.proxy.settings import Pin

PROXY_URL = f"http://{PROXY}:{PROXY_PORT}"
"""What the guest's programs are told."""
LOOPBACK_NAME = "loopback.sandbox"
"""A registry on this host's loopback, in the guest, to which `localhost` is the guest."""
PLAIN = ("http", "https")


@frozen
class Supply:
    """What a start does with the host's registries."""

    packages: Packages = field(factory=Packages)
    """For the identity."""
    pins: tuple[tuple[str, int], ...] = ()
    """Private addresses and ports that the network has to let through."""
    registries: tuple[Pin, ...] = ()
    """What the proxy lets through, where there is one."""
    warnings: tuple[str, ...] = ()


async def find(settings: Settings, environment: Mapping[str, str] = os.environ) -> Supply:
    """Read the host's configuration and look up the names in it; at most some 2 s, never fails.

    A supervisor has the environment of the client that made it start, so the variables are those
    of the terminal or editor in which somebody asked for the sandbox.
    """
    if settings.network is Network.OFFLINE:
        return Supply()
    opens = settings.network is Network.OPEN
    if not settings.registries:
        return supply(Found((), (), (), ()), {}, opens=opens)
    return await anyio.to_thread.run_sync(partial(_find, dict(environment), opens=opens))


def _find(environment: Mapping[str, str], *, opens: bool) -> Supply:
    found = registries.read(environment)
    addresses = lookup.addresses({registry.host for registry in found.registries})
    return supply(found, addresses, opens=opens)


def supply(found: Found, addresses: Mapping[str, tuple[str, ...]], *, opens: bool) -> Supply:
    """The supply from what was read and looked up. Pure."""
    return _direct(found, addresses) if opens else _by_proxy(found, addresses)


def _by_proxy(found: Found, addresses: Mapping[str, tuple[str, ...]]) -> Supply:
    """The proxy reaches the registries and looks their names up; the guest knows the proxy."""
    pins: dict[Pin, None] = {}
    warnings = list(found.warnings)
    usable = []
    for registry in found.registries:
        if registry.kind is Kind.APT and registry.role == "proxy":
            warnings.append(
                f"This host's apt goes through the proxy {registry.host}; the guest's does not, "
                "it goes through that of the sandbox."
            )
            continue
        known = addresses.get(registry.host, ())
        if registry.host == "localhost" or (
            _is_address(registry.host) and IPv4Address(registry.host).is_loopback
        ):
            # By its own name the guest would find itself.
            place = registry.url.split("/")[2]
            inside = f"{LOOPBACK_NAME}:{registry.port}"
            registry = evolve(
                registry, host=LOOPBACK_NAME, url=registry.url.replace(place, inside, 1)
            )
            pins[Pin(LOOPBACK_NAME, registry.port, known or ("127.0.0.1",))] = None
            usable.append(registry)
            continue
        private = [one for one in known if obstacle(one) is not None]
        if any(not _is_private(one) for one in private):
            warnings.append(
                f"This host's {registry.kind} registry {registry.host} is where no guest may go; "
                "the guest does not reach it."
            )
            continue
        pins[Pin(registry.host, registry.port, known if private else ())] = None
        usable.append(registry)
    options = [line for line in found.apt_options if "::Proxy" not in line]
    return Supply(
        packages=packages.configure(
            usable,
            certificates=found.certificates,
            apt_options=(*options, *(f'Acquire::{kind}::Proxy "{PROXY_URL}";' for kind in PLAIN)),
        ),
        registries=tuple(pins),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _direct(found: Found, addresses: Mapping[str, tuple[str, ...]]) -> Supply:
    pins: dict[tuple[str, int], None] = {}
    hosts: dict[tuple[str, str], None] = {}
    warnings = list(found.warnings)
    usable = []
    silent = {
        registry.host
        for registry in found.registries
        if registry.configured and registry.host not in addresses
    }
    if silent:
        # Most are public, and the guest asks for them itself; this is for those that are not.
        warnings.append(
            f"This host found no IPv4 address of {', '.join(sorted(silent))} at the start: if it "
            "is a private one, the guest does not reach it. Start again when the name resolves."
        )
    for registry in found.registries:
        known = addresses.get(registry.host, ())
        if known and all(IPv4Address(one).is_loopback for one in known):
            if registry.configured:
                warnings.append(
                    f"This host's {registry.kind} registry {registry.host} is on its own loopback, "
                    "which the guest does not reach; the guest is not told of it."
                )
            continue
        usable.append(registry)
        private = [one for one in known if _is_private(one)]
        pins |= dict.fromkeys((one, registry.port) for one in private)
        # What the host's resolver or its /etc/hosts knows, the guest's may not; and it must be the
        # very address that is let through.
        if private and len(private) == len(known) and not _is_address(registry.host):
            hosts |= dict.fromkeys((one, registry.host) for one in private)
    return Supply(
        packages=packages.configure(
            usable,
            certificates=found.certificates,
            apt_options=found.apt_options,
            hosts=tuple(hosts),
        ),
        pins=tuple(pins),
        warnings=tuple(warnings),
    )


def _is_private(text: str) -> bool:
    """Whether an address has to be let through, and may be.

    Never loopback, nor where clouds hand out credentials: whoever answers the host's questions for
    names would open these to a guest.
    """
    address = IPv4Address(text)
    closed = any(address in network for network in (*NEVER, *METADATA))
    return not closed and obstacle(address) is not None


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True
