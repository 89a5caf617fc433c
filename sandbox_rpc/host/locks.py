"""flock(2) as the truth about who is alive: held means alive, whatever became of pids and reboots.

A lock belongs to the open file, so a child that inherits the descriptor keeps it held; the kernel
lets go when the last copy is closed, also after kill -9.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

RETRY_S = 0.05
_EXCLUSIVE = re.compile(r"^lock:.*FLOCK.*WRITE", re.MULTILINE)


def acquire(path: Path, *, shared: bool = False, make: bool = True) -> int | None:
    """The descriptor of the lock at `path`, or None where another open file holds it.

    The file is made where it is missing, unless `make` is off: then that is a FileNotFoundError.
    The descriptor is closed on exec; pass it with `pass_fds` to hand the lock to a child.
    """
    create = os.O_CREAT if make else 0
    fd = os.open(path, os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return fd


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock; a file that is not there is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def holders(path: Path) -> list[int]:
    """Pids of this user's processes that hold the lock exclusively, also by inheritance.

    The kernel's own list (/proc/locks) names only who took the lock. Those that merely have the
    file open, to ask whether it is held, are not meant: who is listed here may be ended.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # another user's, or gone meanwhile
            for fd in (entry / "fd").iterdir():
                with suppress(OSError):
                    stat = fd.stat()
                    if (stat.st_dev, stat.st_ino) != (wanted.st_dev, wanted.st_ino):
                        continue
                    if _EXCLUSIVE.search((entry / "fdinfo" / fd.name).read_text()):
                        found.append(int(entry.name))
                        break
    return found


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold the lock for the block, waiting for it: only for work of milliseconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


@asynccontextmanager
async def held_async(path: Path) -> AsyncIterator[int]:
    """Hold the lock for the block; the wait can be cancelled, so it tries again and again.

    flock(2) cannot be waited for together with anything else, hence the interval (50 ms).
    """
    while (fd := acquire(path)) is None:
        await anyio.sleep(RETRY_S)
    try:
        yield fd
    finally:
        os.close(fd)
