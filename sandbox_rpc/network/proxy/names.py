"""Where names lead: looked up once for each connection, checked, and dialled as they were checked.

A name that leads anywhere but to the internet leads nowhere: not to this host, not to its networks,
not to where clouds hand out credentials. The exceptions are the registries of the host's own tools,
at exactly the addresses that the host saw (`settings.Pin`), and addresses that a rule writes out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from sandbox_rpc.network import resolver
from sandbox_rpc.network.address import METADATA, NEVER, obstacle
from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.request import Refused
from sandbox_rpc.network.proxy.settings import Names, Pin

LIMIT_S = 15.0
LOOKUPS = 32
"""At a time; a resolver that does not answer holds up no more than these."""
REMEMBERED_S = 30.0
"""The check is made again each time; only the question is spared."""
MEMORY = 1000
HOSTS = Path("/etc/hosts")
NSSWITCH = Path("/etc/nsswitch.conf")
MAX_HOSTS = 256 << 10


class Address(NamedTuple):
    """One answer."""

    family: int
    text: str


def read() -> Names:
    """How this host finds names, without the domains that it tries in turn."""
    return Names(resolv=_resolv(), hosts=_text(HOSTS, MAX_HOSTS))


def write(names: Names) -> None:
    """Make it so in a view of our own; glibc looks at the files again when they have changed."""
    NSSWITCH.write_text("hosts: files dns\n")
    HOSTS.write_text(names.hosts)
    resolver.RESOLV_CONF.write_text(names.resolv)


class Resolver:
    """Answers for one proxy."""

    def __init__(self, registries: Iterable[Pin]) -> None:
        self._pins: Mapping[tuple[str, int], tuple[str, ...]] = {
            (one.host, one.port): one.addresses for one in registries if one.addresses
        }
        self._known: dict[str, tuple[float, list[Address]]] = {}
        self._limiter = anyio.CapacityLimiter(LOOKUPS)

    def forget(self) -> None:
        """The host's name servers have changed."""
        self._known.clear()

    async def find(self, host: str, port: int, *, written_out: bool) -> list[Address]:
        """The addresses to dial, at least one.

        `written_out`: a rule names this very address.

        Raises:
            Refused: there are none, or they are not on the internet.
        """
        pinned = self._pins.get((host, port))
        if pinned is not None:
            return [_address(text) for text in pinned]
        if hostname.is_address(host):
            _check(host, host, is_chosen=written_out)
            return [_address(host)]
        now = anyio.current_time()
        at, found = self._known.get(host, (0.0, []))
        if not found or now - at > REMEMBERED_S:
            found = await self._look_up(host)
            if len(self._known) >= MEMORY:
                self._known.clear()
            self._known[host] = (now, found)
        for address in found:
            _check(host, address.text)
        return found

    async def look_up_any(self, host: str) -> list[Address]:
        """The addresses of another proxy, wherever it is.

        Raises:
            Refused: there are none.
        """
        return [_address(host)] if hostname.is_address(host) else await self._look_up(host)

    async def _look_up(self, host: str) -> list[Address]:
        try:
            with anyio.fail_after(LIMIT_S):
                answers = await anyio.to_thread.run_sync(
                    _ask, host, limiter=self._limiter, abandon_on_cancel=True
                )
        except TimeoutError:
            raise Refused(504, "unresolved", f"Nobody has said where {host} is.") from None
        except OSError as error:
            raise Refused(502, "unresolved", f"{host}: {error.strerror}.") from None
        return list(dict.fromkeys(answers))


def _ask(host: str) -> list[Address]:
    # As bytes: Python would load a codec for names that are ASCII anyway.
    answers = socket.getaddrinfo(
        host.encode(), None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [Address(int(family), str(place[0])) for family, _, _, _, place in answers]


def _check(host: str, text: str, *, is_chosen: bool = False) -> None:
    text = text.partition("%")[0]
    why = obstacle(text)
    if why is not None and is_chosen:
        address = ip_address(text)
        closed = any(address in network for network in (*NEVER, *METADATA))
        why = why if closed or address.version == 6 else None
    if why is None and is_own(text):
        why = "this host"
    if why is not None:
        shown = "It" if host == text else f"{host} leads to {text}, which"
        raise Refused(403, "private", f"{shown} is not the internet: {why}.")


def is_own(text: str) -> bool:
    """Whether an address is this host's, public ones too: to itself a host speaks from there."""
    address = _address(text)
    try:
        with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
            probe.connect((text, 9))
            return str(probe.getsockname()[0]) == str(ip_address(text))
    except OSError:
        return False  # no way leads there; the dialling will say so


def _address(text: str) -> Address:
    return Address(int(socket.AF_INET6 if ":" in text else socket.AF_INET), text)


def _resolv() -> str:
    # With `search`, an unknown name becomes one of the company's, and leads to another host.
    lines = _text(resolver.RESOLV_CONF, resolver.MAX_BYTES).splitlines()
    kept = [line for line in lines if line.split()[:1] in (["nameserver"], ["options"])]
    return "\n".join([*kept, "search .", ""])


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""
