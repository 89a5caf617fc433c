"""Serves the guest's serial port to any number of clients.

QEMU's socket takes one client, and the supervisor is it. All output since power-on is in
console.log, which QEMU writes itself; the hub adds the live stream. A client that stops reading is
let go once its backlog is full: it never stalls the guest or another client.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from sandbox_rpc.console import log
from sandbox_rpc.host import sockets

CHUNK = 1 << 14
BACKLOG_CHUNKS = 256
"""4 MiB at most for one client."""
LINE_KEPT = 4096
"""Bytes of the unfinished line, which a new client sees first: usually the prompt."""


class Hub:
    """The console of one running machine."""

    def __init__(self, console_log: Path) -> None:
        self._log = console_log
        self._serial: anyio.abc.SocketStream | None = None
        self._clients: set[MemoryObjectSendStream[bytes]] = set()
        # Nobody heard what was printed before, under another supervisor perhaps: the log has it.
        self._line = _end(console_log, LINE_KEPT).rpartition(b"\n")[2]
        self._since_trim = 0

    async def run(self, serial_socket: Path) -> None:
        """Pass output on until QEMU closes the port."""
        try:
            self._serial = await sockets.connect(serial_socket)
            async with self._serial:
                async for chunk in self._serial:
                    self._spread(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        finally:
            self._serial = None
            for client in list(self._clients):
                client.close()

    async def serve(
        self, socket: Path, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept clients at `socket`, for socat and for `sandbox console`."""
        async with sockets.listen(socket) as listener:
            sockets.make_shortcut(socket)
            task_status.started()
            try:
                await listener.serve(self._attend)
            finally:
                sockets.remove_shortcut(socket)

    async def type(self, data: bytes) -> bool:
        """Send keys to the guest; False where the port is closed."""
        if self._serial is None:
            return False
        try:
            await self._serial.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return False
        return True

    async def _attend(self, stream: anyio.abc.SocketStream) -> None:
        send, receive = anyio.create_memory_object_stream[bytes](BACKLOG_CHUNKS)
        async with stream, anyio.create_task_group() as group:
            self._clients.add(send)
            if self._line:
                send.send_nowait(self._line)
            group.start_soon(self._deliver, stream, receive, group.cancel_scope)
            try:
                async for data in stream:
                    if self._serial is not None:
                        await self._serial.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                pass
            finally:
                self._clients.discard(send)
                send.close()
                group.cancel_scope.cancel()

    async def _deliver(
        self,
        stream: anyio.abc.SocketStream,
        chunks: MemoryObjectReceiveStream[bytes],
        scope: anyio.CancelScope,
    ) -> None:
        try:
            async for chunk in chunks:
                await stream.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        scope.cancel()

    def _spread(self, chunk: bytes) -> None:
        self._line = (self._line + chunk).rpartition(b"\n")[2][-LINE_KEPT:]
        for client in list(self._clients):
            try:
                client.send_nowait(chunk)
            except anyio.WouldBlock:
                self._clients.discard(client)
                client.close()
            except anyio.BrokenResourceError:
                self._clients.discard(client)
        self._since_trim += len(chunk)
        if self._since_trim >= log.TRIM_EVERY:
            self._since_trim = 0
            log.trim(self._log)


def tail(path: Path, size: int = 4000) -> str:
    """The end of a console log as text, without control sequences."""
    return log.plain(_end(path, size).decode(errors="replace"))


def _end(path: Path, size: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - size))
        return file.read(size)
