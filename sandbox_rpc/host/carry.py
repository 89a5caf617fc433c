"""Copies files of this host into a folder that a guest writes at the same time.

The guest may put a link in the place of any folder at any moment, so every step is taken relative
to an open folder and follows nothing: what the copy writes stays below the folder it was given.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PART = re.compile(r"[A-Za-z0-9._@+-]{1,255}")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MODES = 0o755
"""Neither setuid nor writable for others."""
PIECE = 1 << 20

Told = Callable[[int], None]
"""Called with the bytes copied so far; what it raises breaks the copy off."""


def parts_of(target: str) -> list[str]:
    """The names of a relative path.

    Raises:
        ValueError: it is not one, or leads out.
    """
    parts = target.split("/")
    if not all(PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError(target)
    return parts


def carry(source: Path, folder: Path, target: str, told: Told = lambda _: None) -> bool:
    """Copy a file or folder to `target` below `folder`, whole or not at all.

    Returns False where something is there already. Where root copies for another user, all of it
    is that user's, as `folder` is.

    Raises:
        OSError: it cannot be read or written, or something else stands in the way.
        ValueError: `target` is no path below a folder.
    """
    *above, name = parts_of(target)
    with ExitStack() as stack:
        at = os.open(folder, FOLDER)
        stack.callback(os.close, at)
        found = os.fstat(at)
        owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
        for part in above:
            with suppress(FileExistsError):
                _make_folder(part, at, owner)
            at = os.open(part, FOLDER, dir_fd=at)
            stack.callback(os.close, at)
        if _exists(name, at):
            return False
        fresh = f".{name[:200]}.{secrets.token_hex(6)}"
        try:
            _Copy(owner, told).copy(source, fresh, at)
            os.rename(fresh, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            _remove(fresh, at)
            raise
        return True


class _Copy:
    def __init__(self, owner: tuple[int, int] | None, told: Told) -> None:
        self._owner = owner
        self._told = told
        self._bytes = 0

    def copy(self, source: Path, name: str, at: int) -> None:
        found = source.lstat()
        if stat.S_ISDIR(found.st_mode):
            with _folder(name, at, self._owner) as inside:
                for entry in sorted(source.iterdir()):
                    self.copy(entry, entry.name, inside)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), name, dir_fd=at)
            if self._owner:
                os.chown(name, *self._owner, dir_fd=at, follow_symlinks=False)
        elif stat.S_ISREG(found.st_mode):
            self._file(source, name, at, found.st_mode & MODES)

    def _file(self, source: Path, name: str, at: int, mode: int) -> None:
        target = os.open(name, NEW, mode, dir_fd=at)
        try:
            with source.open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(target, view) :]
                    self._bytes += len(piece)
                    self._told(self._bytes)
            os.fchmod(target, mode)
            if self._owner:
                os.fchown(target, *self._owner)
        finally:
            os.close(target)


@contextmanager
def _folder(name: str, at: int, owner: tuple[int, int] | None) -> Iterator[int]:
    _make_folder(name, at, owner)
    inside = os.open(name, FOLDER, dir_fd=at)
    try:
        yield inside
    finally:
        os.close(inside)


def _make_folder(name: str, at: int, owner: tuple[int, int] | None) -> None:
    os.mkdir(name, MODES, dir_fd=at)
    if owner:
        os.chown(name, *owner, dir_fd=at, follow_symlinks=False)


def _exists(name: str, at: int) -> bool:
    try:
        os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(name: str, at: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=at)
        return
    shutil.rmtree(name, ignore_errors=True, dir_fd=at)
