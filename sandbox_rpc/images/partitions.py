"""The partitions of a disk: GPT, else MBR's four, else the whole disk as one."""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import Protocol

from attrs import frozen

SECTOR = 512
MAX_ENTRIES = 1024
ROOT_TYPES = {
    "x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}
"""GPT types of root partitions: the Discoverable Partitions Specification."""
_EXTENDED = frozenset({0x05, 0x0F, 0x85})


class Readable(Protocol):
    """Something with bytes at offsets."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on."""


@frozen
class Partition:
    """A part of a disk."""

    number: int
    """As the kernel counts, from 1; 0: the whole disk."""
    start: int
    """Bytes."""
    size: int
    """Bytes."""
    kind: str = ""
    """GPT type, or MBR's as two digits."""
    uuid: str = ""
    """What `PARTUUID=` calls it."""

    @property
    def root_argument(self) -> str:
        """How the kernel is told that this is the root: by what is written on the disk."""
        return f"PARTUUID={self.uuid}" if self.uuid else "/dev/vda"


@frozen
class Window:
    """A partition as a thing to read from."""

    disk: Readable
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of it; those behind its end are missing."""
        length = min(length, self.size - offset)
        return self.disk.read(self.start + offset, length) if length > 0 else b""


def table(disk: Readable) -> list[Partition]:
    """The partitions, by number; the whole disk where it has no table."""
    for sector in (1, disk.size // SECTOR - 1):
        if sector > 0 and (found := _gpt(disk, sector)) is not None:
            return found
    return _mbr(disk) or [Partition(0, 0, disk.size)]


def _gpt(disk: Readable, sector: int) -> list[Partition] | None:
    if (sector + 1) * SECTOR > disk.size:
        return None
    head = disk.read(sector * SECTOR, SECTOR)
    length, crc = struct.unpack_from("<II", head, 12)
    if head[:8] != b"EFI PART" or not 92 <= length <= SECTOR:
        return None
    if zlib.crc32(head[:16] + bytes(4) + head[20:length]) != crc:
        return None
    first, count, size, entries_crc = struct.unpack_from("<QIII", head, 72)
    if count > MAX_ENTRIES or not 128 <= size <= 4096:
        return None
    if first * SECTOR + count * size > disk.size:
        return None
    entries = disk.read(first * SECTOR, count * size)
    if zlib.crc32(entries) != entries_crc:
        return None
    found = []
    for number in range(count):
        entry = entries[number * size : (number + 1) * size]
        begin, end = struct.unpack_from("<QQ", entry, 32)
        if entry[:16] == bytes(16) or not begin <= end < disk.size // SECTOR:
            continue
        found.append(
            Partition(
                number + 1,
                begin * SECTOR,
                (end - begin + 1) * SECTOR,
                kind=str(uuid.UUID(bytes_le=entry[:16])),
                uuid=str(uuid.UUID(bytes_le=entry[16:32])),
            )
        )
    return found


def _mbr(disk: Readable) -> list[Partition]:
    if disk.size < SECTOR:
        return []
    head = disk.read(0, SECTOR)
    if head[510:] != b"\x55\xaa":
        return []
    signature = struct.unpack_from("<I", head, 440)[0]
    found = []
    for index in range(4):
        state, kind = head[446 + 16 * index], head[450 + 16 * index]
        start, count = struct.unpack_from("<II", head, 454 + 16 * index)
        if state not in (0, 0x80):
            return []  # a boot sector of a file system, not a table
        if kind in (0, 0xEE) or kind in _EXTENDED or (start + count) * SECTOR > disk.size:
            continue
        number = index + 1
        found.append(
            Partition(
                number, start * SECTOR, count * SECTOR,
                kind=f"{kind:02x}", uuid=f"{signature:08x}-{number:02x}",
            )
        )  # fmt: skip
    return found
