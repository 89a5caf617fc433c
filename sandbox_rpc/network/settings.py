"""What a network process is started with: a value, and its JSON on an inherited descriptor."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from sandbox_rpc.network.policy import PROXY, PROXY_PORT, Mode, Terms, parse_rule

MTU = 9000
"""Largest packet between guest and libslirp; a guest with a smaller one is served as well."""


class Route(NamedTuple):
    """A unix socket of the host behind an address of the guest's network."""

    path: str
    """As the network process sees it."""
    address: str = str(PROXY)
    port: int = PROXY_PORT


class Forward(NamedTuple):
    """A listening socket whose connections lead into the guest."""

    fd: int
    """Inherited."""
    guest_port: int


class Start(NamedTuple):
    """Everything a network process needs."""

    mode: Mode
    qemu: int
    """Inherited: the connection to QEMU's stream socket."""
    control: int
    """Inherited: a bound SOCK_SEQPACKET unix socket; the process itself begins to listen."""
    allow: tuple[str, ...] = ()
    """Exceptions as `policy.parse_rule` takes them."""
    host_ports: tuple[int, ...] = ()
    pins: tuple[tuple[str, int], ...] = ()
    routes: tuple[Route, ...] = ()
    forwards: tuple[Forward, ...] = ()
    dhcp: bool = False
    mtu: int = MTU
    resolver: str | None = None
    """Text for /etc/resolv.conf in the process's own view; None where it sees the host's."""
    namespace: str = ""
    """Why it has no view of its own; empty where it has one."""
    readable: tuple[str, ...] = ()
    """Folders that it may go on reading where it has no view of its own."""

    @property
    def terms(self) -> Terms:
        """The policy's part.

        Raises:
            RuleInvalid: an exception is not one.
        """
        return Terms(
            mode=self.mode,
            allow=tuple(map(parse_rule, self.allow)),
            host_ports=frozenset(self.host_ports),
            pins=frozenset((IPv4Address(address), port) for address, port in self.pins),
            routes=frozenset((IPv4Address(route.address), route.port) for route in self.routes),
            dhcp=self.dhcp,
        )


def dump(start: Start) -> bytes:
    """The JSON of it."""
    fields = start._asdict()
    fields["routes"] = [route._asdict() for route in start.routes]
    fields["forwards"] = [forward._asdict() for forward in start.forwards]
    return json.dumps(fields).encode()


def parse(data: bytes) -> Start:
    """Read it back.

    Raises:
        ValueError, TypeError, KeyError: not what `dump` writes.
    """
    fields: dict[str, Any] = json.loads(data)
    return Start(
        **{
            **fields,
            "mode": Mode(fields["mode"]),
            "allow": tuple(fields["allow"]),
            "host_ports": tuple(fields["host_ports"]),
            "pins": tuple((str(address), int(port)) for address, port in fields["pins"]),
            "routes": tuple(Route(**route) for route in fields["routes"]),
            "forwards": tuple(Forward(**forward) for forward in fields["forwards"]),
            "readable": tuple(fields["readable"]),
        }
    )
