"""A tunnel by CONNECT: TLS with the host that was allowed, or HTTP with it, and nothing else.

The answer to CONNECT has to be given before the client says anything, so what turns out to be for
somebody else can only be cut.
"""

from __future__ import annotations

import re

import anyio

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.hello import HANDSHAKE, HelloReader, NotTls
from sandbox_rpc.network.proxy.hostname import NoHost
from sandbox_rpc.network.proxy.line import Ended, Line
from sandbox_rpc.network.proxy.request import Refused

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HELLO_S = 30.0
"""For the client's first words."""
MAX_LINE = 16 << 10
_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]\r?\n")


class Opening:
    """What a client says first in a tunnel."""

    __slots__ = ("data", "is_tls", "sni")

    def __init__(self, data: bytes, sni: str | None, *, is_tls: bool) -> None:
        self.data = data
        """All of it, for the server."""
        self.sni = sni
        self.is_tls = is_tls


async def listen(guest: Line, early: bytes, host: str) -> Opening:
    """Read the client's first words, as far as they say for whom they are.

    Raises:
        Refused: they are for somebody else, or for nobody.
        Ended: the guest has gone.
    """
    said = bytearray(early)
    reader = HelloReader()
    fresh = bytes(early)
    try:
        with anyio.fail_after(HELLO_S):
            while not said:
                fresh = await guest.receive()
                if not fresh:
                    raise Ended("the guest has gone")
                said += fresh
            if said[0] != HANDSHAKE:
                while not _LINE.match(said):
                    if b"\n" in said or len(said) > MAX_LINE or not said[:1].isupper():
                        raise NotTls("nor is it HTTP")
                    fresh = await guest.receive()
                    if not fresh:
                        raise Ended("the guest has gone")
                    said += fresh
                return Opening(bytes(said), None, is_tls=False)
            while (hello := reader.feed(fresh)) is None:
                fresh = await guest.receive()
                if not fresh:
                    raise Ended("the guest has gone")
                said += fresh
    except TimeoutError:
        raise Refused(408, "silent", "The client says nothing in its tunnel.") from None
    except NotTls as error:
        raise Refused(403, "not-tls", f"What goes through the tunnel is no TLS: {error}.") from None
    _check(hello.name, host)
    return Opening(bytes(said), hello.name, is_tls=True)


def _check(name: str | None, host: str) -> None:
    if name is None:
        # To an address TLS says no name (RFC 6066), to a name it has to.
        if hostname.is_address(host):
            return
        raise Refused(403, "no-sni", f"The tunnel to {host} does not say in TLS whom it is for.")
    try:
        named = hostname.canonical(name)
    except NoHost:
        named = ""
    if named != host:
        shown = name if name.isprintable() else "another"
        raise Refused(403, "sni-mismatch", f"The tunnel to {host} is for {shown[:100]} in TLS.")
