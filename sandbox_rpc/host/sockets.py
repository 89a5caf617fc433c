"""Unix sockets under paths of any length.

The kernel takes 107 bytes of path; a socket is therefore reached through its folder's descriptor.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

import anyio
from anyio.abc import SocketListener, SocketStream

MAX_PATH = 107
"""Longest path, in bytes, that bind(2) and connect(2) take."""


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


async def connect(path: Path) -> SocketStream:
    """Connect to the socket at `path`.

    Raises:
        OSError: nobody listens there, or there is no such socket.
    """
    with short(path) as name:
        return await anyio.connect_unix(name)


@asynccontextmanager
async def listen(path: Path) -> AsyncIterator[SocketListener]:
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
        async with await SocketListener.from_socket(raw) as listener:
            yield listener
    finally:
        raw.close()
        path.unlink(missing_ok=True)


async def connect_when_there(path: Path) -> SocketStream:
    """Connect to a socket that another process is about to make; wrap it in a time limit."""
    while True:
        try:
            return await connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await anyio.sleep(0.005)
