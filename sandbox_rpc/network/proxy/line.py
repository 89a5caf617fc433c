"""A connection as the proxy uses it: raw, non-blocking, without a copy too many.

anyio's streams keep a buffer and a task for each connection; here a read is tried before it is
waited for, and what goes by is held in one buffer for all connections.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import anyio
import anyio.lowlevel

CHUNK = 256 << 10
"""Bytes moved in one go."""
FAIR = 16
"""Moves in a row before others have their turn."""
_BUFFER = memoryview(bytearray(CHUNK))


class Ended(Exception):
    """The other end has gone in the middle of it."""


class Line:
    """One end of a connection. `moved` counts what was taken from it."""

    __slots__ = ("moved", "socket")

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self.socket = raw
        self.moved = 0

    async def receive(self, limit: int = 65536) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            Ended: the connection broke.
        """
        while True:
            try:
                data = self.socket.recv(limit)
            except BlockingIOError:
                await anyio.wait_readable(self.socket)
            except OSError as error:
                raise Ended(str(error)) from None
            else:
                self.moved += len(data)
                return data

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it; waits for an end that does not read.

        Raises:
            Ended: the connection broke.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)
            except OSError as error:
                raise Ended(str(error)) from None

    def has_news(self) -> bool:
        """Whether something can be read, if only that it has ended."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it; nobody may be waiting on it."""
        self.socket.close()


class Pace:
    """When something last went by, for whoever ends what is idle."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = anyio.current_time()


async def relay(one: Line, other: Line, pace: Pace) -> None:
    """Move bytes both ways until both have ended; an end of one alone is passed on.

    Raises:
        Ended: a connection broke.
    """
    failures: list[Ended] = []

    async def carry(source: Line, sink: Line, scope: anyio.CancelScope) -> None:
        try:
            await _pump(source, sink, pace)
        except Ended as error:
            failures.append(error)
            scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(carry, other, one, group.cancel_scope)
        await carry(one, other, group.cancel_scope)
    if failures:
        raise failures[0]


async def _pump(source: Line, sink: Line, pace: Pace) -> None:
    taker, giver = source.socket, sink.socket
    turns = 0
    while True:
        try:
            count = taker.recv_into(_BUFFER)
        except BlockingIOError:
            turns = 0
            await anyio.wait_readable(taker)
            continue
        except OSError as error:
            raise Ended(str(error)) from None
        if not count:
            sink.finish()
            return
        source.moved += count
        pace.at = anyio.current_time()
        try:
            sent = giver.send(_BUFFER[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Ended(str(error)) from None
        if sent < count:
            # Others use the buffer while we wait.
            turns = 0
            await sink.send(bytes(_BUFFER[sent:count]))
        elif (turns := turns + 1) == FAIR:
            turns = 0
            await anyio.lowlevel.checkpoint()
