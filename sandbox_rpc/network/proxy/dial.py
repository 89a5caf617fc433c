"""Connections to the outside: direct, or through the proxy that this host itself goes through."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import anyio
import h11

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.line import Ended, Line
from sandbox_rpc.network.proxy.names import Address, Resolver
from sandbox_rpc.network.proxy.request import MAX_HEAD, Headers, Refused
from sandbox_rpc.network.proxy.settings import Upstream

CONNECT_S = 20.0
ANSWER_S = 60.0
"""For another proxy to connect in its turn."""
STAGGER_S = 0.25
"""Before the next address is tried beside one that does not answer (RFC 8305)."""
MOST = 8
"""Addresses tried."""


class Outside:
    """An open connection to where a request goes."""

    __slots__ = ("address", "is_shared_proxy", "line")

    def __init__(self, line: Line, address: str, *, is_shared_proxy: bool = False) -> None:
        self.line = line
        self.address = address
        """As dialled."""
        self.is_shared_proxy = is_shared_proxy
        """Whether requests have to name the host: it is a proxy that is on the other end."""


class Dialler:
    """Opens them."""

    def __init__(self, resolver: Resolver, upstream: Upstream | None) -> None:
        self._resolver = resolver
        self._upstream = upstream

    @property
    def authorization(self) -> Headers:
        """What another proxy wants to see with each request."""
        if self._upstream is None or not self._upstream.authorization:
            return []
        return [(b"Proxy-Authorization", self._upstream.authorization.encode())]

    async def open(self, host: str, port: int, *, tunnel: bool, written_out: bool) -> Outside:
        """Connect; `tunnel`: bytes follow rather than requests of ours.

        Raises:
            Refused: it cannot or may not be.
        """
        upstream = self._upstream
        if upstream is not None and not _is_direct(host, upstream.direct):
            if hostname.is_address(host):
                # A name is for the other proxy to look up; an address can be judged here.
                await self._resolver.find(host, port, written_out=written_out)
            addresses = await self._resolver.look_up_any(upstream.host)
            line, address = await connect(addresses, upstream.port, upstream.host)
            if tunnel:
                try:
                    await self._ask_for_tunnel(line, host, port)
                except BaseException:
                    line.close()
                    raise
            return Outside(line, address, is_shared_proxy=not tunnel)
        addresses = await self._resolver.find(host, port, written_out=written_out)
        line, address = await connect(addresses, port, host)
        return Outside(line, address)

    async def _ask_for_tunnel(self, line: Line, host: str, port: int) -> None:
        place = hostname.authority(host, port).encode()
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        headers = [(b"Host", place), *self.authorization]
        head = client.send(h11.Request(method=b"CONNECT", target=place, headers=headers))
        assert head is not None
        try:
            with anyio.fail_after(ANSWER_S):
                await line.send(head)
                client.send(h11.EndOfMessage())
                while (event := client.next_event()) is h11.NEED_DATA:
                    # One byte at a time would be exact; what a server says first is not ours yet.
                    client.receive_data(await line.receive())
        except TimeoutError:
            raise Refused(504, "upstream", "The proxy of this network does not answer.") from None
        except (Ended, h11.ProtocolError):
            raise Refused(
                502, "upstream", "The proxy of this network does not speak HTTP."
            ) from None
        if not isinstance(event, h11.Response) or not 200 <= event.status_code < 300:
            status = getattr(event, "status_code", "nothing")
            raise Refused(502, "upstream", f"The proxy of this network answers with {status}.")
        if client.trailing_data[0]:
            raise Refused(502, "upstream", "The proxy of this network speaks out of turn.")


async def connect(addresses: Sequence[Address], port: int, host: str) -> tuple[Line, str]:
    """A connection to one of these, in their order, and its address.

    Raises:
        Refused: none of them takes it.
    """
    found: list[tuple[Line, str]] = []
    failures: list[str] = []

    async def attempt(address: Address, over: anyio.Event, scope: anyio.CancelScope) -> None:
        try:
            line = await _connect(address, port)
        except OSError as error:
            failures.append(error.strerror or str(error))
        else:
            if found:
                line.close()
            else:
                found.append((line, address.text))
                scope.cancel()
        over.set()

    tries = addresses[:MOST]
    with anyio.move_on_after(CONNECT_S):
        if len(tries) == 1:
            await attempt(tries[0], anyio.Event(), anyio.CancelScope())
        else:
            async with anyio.create_task_group() as group:
                for address in tries:
                    over = anyio.Event()
                    group.start_soon(attempt, address, over, group.cancel_scope)
                    with anyio.move_on_after(STAGGER_S):
                        await over.wait()
    if found:
        return found[0]
    if not failures:
        raise Refused(504, "unreachable", f"{host} does not answer.")
    raise Refused(502, "unreachable", f"{host} cannot be reached: {failures[-1]}.")


async def _connect(address: Address, port: int) -> Line:
    one = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            one.connect((address.text, port))
        except BlockingIOError:
            await anyio.wait_writable(one)
            if status := one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(status, os.strerror(status)) from None
    except BaseException:
        one.close()
        raise
    return Line(one)


def _is_direct(host: str, entries: Sequence[str]) -> bool:
    """Whether NO_PROXY names a host, as curl and requests read it."""
    for entry in entries:
        name = entry.strip().lower().removeprefix("*").lstrip(".")
        if entry.strip() == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False
