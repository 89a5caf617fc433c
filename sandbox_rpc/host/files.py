"""Small files, replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox_rpc.protocol.errors import DiskFull, PermissionDenied

REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into errors for people.

    Raises:
        DiskFull: no room, or the user's quota is used up.
        PermissionDenied: no right to the path, or something else is in its place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"No space left to write {path}.", path=str(path)) from error
        if error.errno in REFUSALS:
            raise PermissionDenied(
                f"Cannot write {path}: {error.strerror}.",
                hint=f"Check who owns {path.parent}, or set SANDBOX_CACHE_BASE.",
                path=str(path),
            ) from error
        raise


def replace(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write `content` beside `path` and rename it over: readers see the old or the new whole."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with translated(path):
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
