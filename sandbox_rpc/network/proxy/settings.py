"""What a proxy is started with: a value, and its JSON on an inherited descriptor or in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sandbox_rpc.network.proxy.rules import PORTS

MAX_FILE = 16 << 20
"""Bytes that the process can write to one file."""


class Pin(NamedTuple):
    """A registry of the host's own tools, and where the host sees it."""

    host: str
    """Canonical."""
    port: int
    addresses: tuple[str, ...] = ()
    """What else would be refused: private ones. Empty: it is looked up like any other name."""


class Upstream(NamedTuple):
    """Another proxy, through which this host reaches the internet."""

    host: str
    port: int
    authorization: str = ""
    """Value of Proxy-Authorization."""
    direct: tuple[str, ...] = ()
    """Names that are reached without it, as NO_PROXY has them."""

    def __repr__(self) -> str:
        # It may come to stand in a log.
        return f"Upstream({self.host}:{self.port})"


class Names(NamedTuple):
    """How the host finds names, as text of the files that say so."""

    resolv: str = ""
    hosts: str = ""


class Wish(NamedTuple):
    """What the proxy does, with paths of the host; kept for the next one of the same machine."""

    folder: str
    """Where the allowlist is."""
    journal: str
    """Where the audit is written."""
    registries: tuple[Pin, ...] = ()
    ports: tuple[int, ...] = PORTS
    upstream: Upstream | None = None
    namespace: str = "auto"
    """`auto`, `require` or `off`, as for QEMU's box."""
    container: str | None = None
    """The sandbox's name, where the proxy proper is tinyproxy in a container."""
    relay: int = 0
    """Port on loopback to which all is passed on as it is; 0: we are the proxy."""


class Start(NamedTuple):
    """Everything one process needs."""

    wish: Wish
    """With the paths that the process sees."""
    listener: int
    """Inherited: a listening unix socket."""
    control: int
    """Inherited: a bound SOCK_SEQPACKET unix socket; the process itself begins to listen."""
    machine: int
    """Inherited: a pidfd of QEMU; -1: none."""
    names: Names | None = None
    """For files in the process's own view; None where it sees the host's."""
    namespace: str = ""
    """Why it has no view of its own; empty where it has one."""
    readable: tuple[str, ...] = ()
    """Folders that it may go on reading where it has no view of its own."""


def dump_wish(wish: Wish) -> bytes:
    """The JSON of it; may hold a password."""
    return json.dumps(_fields(wish)).encode()


def parse_wish(data: bytes) -> Wish:
    """Read it back.

    Raises:
        ValueError, TypeError, KeyError: not what `dump_wish` writes.
    """
    return _wish(json.loads(data))


def dump(start: Start) -> bytes:
    """The JSON of it."""
    fields = start._asdict()
    fields["wish"] = _fields(start.wish)
    fields["names"] = None if start.names is None else start.names._asdict()
    return json.dumps(fields).encode()


def parse(data: bytes) -> Start:
    """Read it back.

    Raises:
        ValueError, TypeError, KeyError: not what `dump` writes.
    """
    fields: dict[str, Any] = json.loads(data)
    names = fields["names"]
    return Start(
        **{
            **fields,
            "wish": _wish(fields["wish"]),
            "names": None if names is None else Names(**names),
            "readable": tuple(fields["readable"]),
        }
    )


def _fields(wish: Wish) -> dict[str, Any]:
    fields = wish._asdict()
    fields["registries"] = [one._asdict() for one in wish.registries]
    fields["upstream"] = None if wish.upstream is None else wish.upstream._asdict()
    return fields


def _wish(fields: dict[str, Any]) -> Wish:
    upstream = fields["upstream"]
    return Wish(
        **{
            **fields,
            "registries": tuple(
                Pin(str(one["host"]), int(one["port"]), _texts(one["addresses"]))
                for one in fields["registries"]
            ),
            "ports": tuple(map(int, fields["ports"])),
            "upstream": None
            if upstream is None
            else Upstream(**{**upstream, "direct": _texts(upstream["direct"])}),
        }
    )


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(str, values))
