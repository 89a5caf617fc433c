"""The two ends of the pipe: frames in, bytes out, and neither ever blocks the loop.

pygls' own writer blocks on a client that does not read, and with it every other request (the same
fault was reported of the MCP SDK); its reader loses step on a lower-case header.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread

from sandbox_rpc.protocol.frames import Decoder

CHUNK = 1 << 16
BACKLOG = 1 << 20
"""Bytes on their way out above which streams wait."""
FLOOD = 64 << 20
"""Bytes on their way out above which no more requests are taken."""


class Outbox:
    """What pygls writes to. Streams wait for `room` before they add more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue = bytearray()
        self._filled = anyio.Event()
        self._drained = anyio.Event()
        self._pollable = True
        self.broken = False
        """Whether the client has closed its end."""

    def write(self, data: bytes) -> None:
        """Add bytes; for pygls."""
        if not self.broken:
            self._queue += data
            self._filled.set()

    def close(self) -> None:
        """Nothing; for pygls."""

    async def room(self, limit: int = BACKLOG) -> None:
        """Wait until at most `limit` bytes are on their way."""
        while len(self._queue) > limit and not self.broken:
            await self._drained.wait()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        os.set_blocking(self._descriptor, False)
        try:
            while True:
                await self._filled.wait()
                self._filled = anyio.Event()
                await self._flush()
        finally:
            # The open file may be shared with the shell that started us.
            os.set_blocking(self._descriptor, True)

    async def _flush(self) -> None:
        while self._queue and not self.broken:
            try:
                await self._wait_writable()
                written = os.write(self._descriptor, self._queue[:CHUNK])
            except BlockingIOError:
                continue
            except OSError:
                self.broken = True
                self._queue.clear()
                written = 0
            del self._queue[:written]
            self._drained.set()
            self._drained = anyio.Event()

    async def _wait_writable(self) -> None:
        if not self._pollable:
            return
        try:
            await anyio.wait_writable(self._descriptor)
        except PermissionError:
            # A plain file: always writable, and epoll refuses it.
            self._pollable = False


async def read_bodies(descriptor: int) -> AsyncIterator[bytes]:
    """The bodies of the messages that come in, until the end of the file.

    Raises:
        FrameError: the peer does not speak the base protocol.
    """
    decoder = Decoder()
    pollable = True
    while True:
        if pollable:
            try:
                await anyio.wait_readable(descriptor)
            except PermissionError:
                pollable = False
        data = (
            os.read(descriptor, CHUNK)
            if pollable
            else await anyio.to_thread.run_sync(os.read, descriptor, CHUNK)
        )
        if not data:
            return
        for body in decoder.feed(data):
            yield body
