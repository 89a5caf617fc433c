"""What changes in folders and files, told by the kernel: nobody polls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from inotify_simple import INotify, flags

FOLDER = (
    flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.MOVED_FROM | flags.DELETE_SELF
    | flags.ONLYDIR
)  # fmt: skip
FILE = flags.MODIFY | flags.CLOSE_WRITE | flags.MOVE_SELF | flags.ATTRIB
CLOSED = int(flags.CLOSE_WRITE)
"""One that could write to the file has closed it; there may be others."""
MOVED = int(flags.MOVE_SELF)
"""The file has another name."""


class Watch:
    """One inotify instance, to be closed.

    Raises:
        OSError: the user has too many (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self._inotify = INotify(inheritable=False, nonblocking=True)
        self._folders: dict[int, Path] = {}

    def add_folder(self, folder: Path, *, written: bool = False) -> bool:
        """Watch the entries of a folder, `written`: their content too; False where it is absent."""
        try:
            mask = FOLDER | flags.CLOSE_WRITE if written else FOLDER
            self._folders[self._inotify.add_watch(folder, mask)] = folder
        except OSError:
            return False
        return True

    def add_file(self, descriptor: int) -> None:
        """Watch an open file, whatever its name has come to mean."""
        self._inotify.add_watch(f"/proc/self/fd/{descriptor}", FILE)

    def close(self) -> None:
        """Give it back."""
        # The loop must forget the descriptor before its number can mean another file.
        anyio.notify_closing(self._inotify.fileno())
        self._inotify.close()

    async def next(self) -> list[tuple[Path, int]]:
        """The next changes: path of the entry (or folder), and inotify's mask.

        An overflow of the kernel's queue is told as a change of the root, `/`: look at everything.
        """
        await anyio.wait_readable(self._inotify.fileno())
        found = []
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                found.append((Path("/"), int(event.mask)))
                continue
            folder = self._folders.get(event.wd, Path())
            found.append((folder / event.name, int(event.mask)))
            if event.mask & flags.IGNORED:
                self._folders.pop(event.wd, None)
        return found


@contextmanager
def open_watch() -> Iterator[Watch]:
    """A watch for the block; raises as `Watch`."""
    watch = Watch()
    try:
        yield watch
    finally:
        watch.close()


def is_unlinked(descriptor: int) -> bool:
    """Whether an open file has no name any more; told as a change of its attributes."""
    return os.fstat(descriptor).st_nlink == 0


def size_of(descriptor: int) -> int:
    """Bytes in an open file."""
    return os.fstat(descriptor).st_size
