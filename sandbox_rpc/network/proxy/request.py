"""A request as the guest sends it, and as it goes on: taken apart and put together anew. Pure.

h11 reads and writes the framing. So nothing of the guest's own bytes but method, path, header
values and body reaches a server, and what two parsers could understand differently is gone: odd
line ends, folded lines, two lengths, a length and chunks, a host in two places.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h11

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.hostname import NoHost

MAX_HEAD = 64 << 10
"""Bytes of a request's or response's head."""
HTTP_PORT = 80
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
     b"proxy-connection", b"te", b"upgrade")
)  # fmt: skip
"""Between two neighbours only. Trailer and transfer-encoding are h11's to write."""
_ABSOLUTE = re.compile(rb"http://([^/?#]*)(/[^#]*|\?[^#]*)?", re.IGNORECASE)

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that goes nowhere, with the status and the sentence for the guest."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """One word, for the audit and for programs."""
        self.message = message


class Target(NamedTuple):
    """Where a request wants to go."""

    host: str
    """Canonical."""
    port: int
    path: bytes
    """As it goes on: from the first slash; empty for CONNECT."""

    @property
    def is_tunnel(self) -> bool:
        """Whether it is for CONNECT."""
        return not self.path


def target_of(request: h11.Request) -> Target:
    """Where a request to a proxy wants to go.

    Raises:
        Refused: it names no place that a proxy goes to.
    """
    if request.method == b"CONNECT":
        host, port = _place(request.target, None)
        return Target(host, port, b"")
    found = _ABSOLUTE.fullmatch(request.target)
    if not found:
        if request.target.startswith(b"/"):
            raise Refused(
                400, "not-a-proxy-request",
                "This is a proxy: set it as HTTP_PROXY and HTTPS_PROXY, do not visit it.",
            )  # fmt: skip
        raise Refused(
            400, "unsupported", "Only http:// addresses and CONNECT can be asked of this proxy."
        )
    host, port = _place(found[1], HTTP_PORT)
    path = found[2] or b"/"
    return Target(host, port, path if path.startswith(b"/") else b"/" + path)


def inner_target(request: h11.Request, host: str, port: int) -> Target:
    """Where a request inside a tunnel goes: to the tunnel's own end and nowhere else.

    Raises:
        Refused: it is for somebody else.
    """
    if request.method == b"CONNECT" or not request.target.startswith(b"/"):
        raise Refused(400, "unsupported", "A tunnel takes no requests to a proxy.")
    said = [value for name, value in request.headers if name == b"host"]
    named = _place(said[0], HTTP_PORT) if said else None
    if named is None or named[0] != host or named[1] not in (port, HTTP_PORT):
        raise Refused(421, "host-mismatch", f"This connection leads to {host} only.")
    return Target(host, port, request.target)


def onward(request: h11.Request, target: Target, *, absolute: bool = False) -> h11.Request:
    """The request as it goes to the server, or with `absolute` to another proxy.

    Raises:
        Refused: it says two things about its own length.
    """
    check_framing(request.headers.raw_items())
    upgrade = wanted_upgrade(request.headers)
    place = hostname.authority(target.host, target.port)
    if target.port == HTTP_PORT:
        place = place.rpartition(":")[0]
    headers: Headers = [(b"Host", place.encode())]
    headers += passed_on(request.headers.raw_items(), drop=frozenset((b"host",)))
    if upgrade is not None:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    goal = b"http://" + place.encode() + target.path if absolute else target.path
    return h11.Request(method=request.method, target=goal, headers=headers)


def passed_on(headers: Headers, *, drop: frozenset[bytes] = frozenset()) -> Headers:
    """The headers that are meant for the other end."""
    listed = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for word in value.split(b",")
    }
    # Some are of more weight than a sender's wish to have them dropped on the way.
    listed -= {b"host", b"content-length", b"transfer-encoding", b"close"}
    gone = _HOP_BY_HOP | listed | drop
    return [(name, value) for name, value in headers if name.lower() not in gone]


def wanted_upgrade(headers: h11._headers.Headers) -> bytes | None:
    """The protocol that both ends shall speak from now on, WebSocket's for one."""
    connection = [
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    ]
    wanted = [value for name, value in headers if name == b"upgrade"]
    if b"upgrade" not in connection or len(wanted) != 1:
        return None
    # To HTTP/2 nobody upgrades here: its requests would go by unseen.
    return None if wanted[0].strip().lower().startswith(b"h2c") else wanted[0]


def check_framing(headers: Headers) -> None:
    """One length or chunks, not both, and nothing that another parser may see differently.

    Raises:
        Refused: it is ambiguous.
    """
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if (lengths and codings) or len(lengths) > 1 or len(codings) > 1:
        raise Refused(400, "ambiguous", "The request says two things about its length.")


def _place(text: bytes, port: int | None) -> tuple[str, int]:
    try:
        return hostname.split_authority(text.decode("ascii"), port)
    except (UnicodeDecodeError, NoHost) as error:
        why = str(error) if isinstance(error, NoHost) else "is not ASCII"
        shown = text[:100].decode("ascii", "replace")
        raise Refused(400, "bad-host", f"{shown!r} {why}.") from None
