"""Unix sockets under paths of any length.

The kernel takes 107 bytes of path; a socket is therefore reached through its folder's descriptor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

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
