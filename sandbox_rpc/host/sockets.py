"""Unix sockets under paths of any length.

The kernel takes 107 bytes of path; a socket is therefore reached through its folder's descriptor.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import SocketStream

MAX_PATH = 107
"""Longest path, in bytes, that bind(2) and connect(2) take."""
PAUSE_S = 0.05


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A path to the same socket that is short enough, valid inside the block."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def shortcut(path: Path) -> Path:
    """A path to the socket that fits into 107 bytes, for programs such as socat; often its own."""
    if len(os.fsencode(path)) <= MAX_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"sandbox-{os.getuid()}", f"{digest}.sock")


def make_shortcut(path: Path) -> None:
    """Make it, where it is needed and its folder is ours alone."""
    link = shortcut(path)
    if link == path:
        return
    with suppress(FileExistsError):
        link.parent.mkdir(mode=0o700)
    stat = link.parent.lstat()
    if not S_ISDIR(stat.st_mode) or stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        return  # another user was here first; the real path still works for our own clients
    link.unlink(missing_ok=True)
    link.symlink_to(path)


def remove_shortcut(path: Path) -> None:
    """Remove it."""
    link = shortcut(path)
    if link != path:
        with suppress(OSError):
            link.unlink()


class Stream(SocketStream):
    """A connection.

    anyio's own streams leave their reader registered for one turn of the loop after a cancel: what
    arrives in that turn is an InvalidStateError in the log, on stderr where there is none.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._socket = raw

    @property
    def _raw_socket(self) -> socket.socket:
        return self._socket

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes, at least one.

        Raises:
            EndOfStream, BrokenResourceError, ClosedResourceError: there are none to come.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                raise self._ended() from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Send all bytes.

        Raises:
            BrokenResourceError, ClosedResourceError: nobody takes them.
        """
        await anyio.lowlevel.checkpoint()
        view = memoryview(item)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise self._ended() from error

    async def send_with(self, item: bytes, descriptor: int) -> None:
        """Send all bytes, and a copy of a descriptor with the first of them.

        Raises:
            BrokenResourceError, ClosedResourceError: nobody takes them.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                sent = socket.send_fds(self._socket, [item], [descriptor])
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise self._ended() from error
            else:
                await self.send(item[sent:])
                return

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close; whoever waits for the connection learns it."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
        await anyio.lowlevel.checkpoint()

    def _ended(self) -> Exception:
        closed = self._socket.fileno() < 0
        return anyio.ClosedResourceError() if closed else anyio.BrokenResourceError()


class Listener:
    """A socket that takes connections; made by `listen`."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw

    async def serve(self, attend: Callable[[SocketStream], Coroutine[Any, Any, None]]) -> None:
        """Attend to each client in a task of its own, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                try:
                    client, _ = self._socket.accept()
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
                except OSError:
                    # Too many open files, or the client has gone; those that are served go on.
                    await anyio.sleep(PAUSE_S)
                else:
                    group.start_soon(attend, Stream(client))


async def connect(path: Path) -> Stream:
    """Connect to the socket at `path`.

    Raises:
        OSError: nobody listens there, or there is no such socket.
    """
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        raw.setblocking(False)
        with short(path) as name:
            # A full queue of the listener is the only thing to wait for, and it cannot report.
            while (status := raw.connect_ex(name)) == errno.EAGAIN:
                await anyio.sleep(PAUSE_S)
        if status:
            raise OSError(status, os.strerror(status))
    except BaseException:
        raw.close()
        raise
    return Stream(raw)


@asynccontextmanager
async def listen(path: Path) -> AsyncIterator[Listener]:
    """Serve at `path`, 0600, in place of what a dead predecessor left; unlinked at the end."""
    path.unlink(missing_ok=True)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short(path) as name:
            mask = os.umask(0o177)
            try:
                raw.bind(name)
            finally:
                os.umask(mask)
        raw.setblocking(False)
        raw.listen(128)
        yield Listener(raw)
    finally:
        raw.close()
        path.unlink(missing_ok=True)
