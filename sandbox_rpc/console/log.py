"""console.log: bounded on disk, with offsets that stay true."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

MAX_KEPT = 64 << 20
"""Bytes of console output that stay on disk; `yes >/dev/ttyS0` must not fill the host."""
TRIM_EVERY = 8 << 20
KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE."""

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")


def trim(path: Path, keep: int = MAX_KEPT) -> None:
    """Give the head of a log back to the file system; its size and offsets do not change.

    The folder is writable by QEMU, so a link put in the log's place is not followed.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        surplus = os.fstat(fd).st_size - keep
        if surplus > 0:
            _punch(fd, surplus)
    finally:
        os.close(fd)


def plain(text: str) -> str:
    """Text without escape sequences and carriage returns, fit for an error message."""
    text = _SEQUENCE.sub("", text).replace("\r", "")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def _punch(fd: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    # A file system without holes keeps the bytes: a limit not met is no reason to lose a console.
    libc.fallocate(fd, KEEP_SIZE_AND_PUNCH, 0, length)
