"""Whether an image is needed, as files and the kernel tell: also by machines nobody remembers."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import store

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock of fcntl(2): type, whence, start, length, pid."""
QEMU_LOCKS = (100, 104)
QEMU_SHARES = (200, 204)
"""Bytes that QEMU locks in every image file it has open: block/file-posix.c."""


def is_open(disk: Path) -> bool:
    """Whether a QEMU has a disk open, whoever started it."""
    try:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        for begin, end in (QEMU_LOCKS, QEMU_SHARES):
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, begin, end - begin, 0)
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
            if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                return True
    finally:
        os.close(fd)
    return False


def under_overlays(layout: Layout) -> dict[str, list[str]]:
    """Digest → names of the sandboxes whose disks lie over it, as the disks themselves say."""
    found: dict[str, list[str]] = {}
    if not layout.rooms.is_dir():
        return found
    for folder in sorted(layout.rooms.iterdir()):
        base = backing(layout.room(folder.name).overlay)
        if base is not None and base.name == store.DISK:
            found.setdefault(f"sha256:{base.parent.name}", []).append(folder.name)
    return found


def backing(overlay: Path) -> Path | None:
    """The file below a qcow2 file."""
    try:
        with overlay.open("rb") as file:
            head = file.read(20)
            if head[:4] != b"QFI\xfb":
                return None
            offset, length = struct.unpack_from(">QI", head, 8)
            if not offset or length > 1023:
                return None
            file.seek(offset)
            return Path(os.fsdecode(file.read(length)))
    except (OSError, struct.error):
        return None
