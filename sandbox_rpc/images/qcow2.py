"""qcow2 files read without QEMU: told whether they are safe to open, and their content.

A file from a stranger may name any file of the host as its backing or data file, and qemu-img would
copy that into its output; so `inspect` comes before any tool of QEMU's. After QEMU's docs/interop/
qcow2.txt. Snapshots inside a file are not looked at.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

from attrs import frozen

from sandbox_rpc.protocol.errors import ImageInvalid

MAGIC = b"QFI\xfb"
MAX_VIRTUAL = 1 << 40
MAX_L1 = 32 << 20
"""Bytes; QEMU's own limit."""
CACHED_TABLES = 16
CACHED_CLUSTERS = 4

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62


@frozen
class Header:
    """What the first bytes say."""

    version: int
    cluster_bits: int
    size: int
    """Bytes of the disk that a guest sees."""
    l1_offset: int
    l1_entries: int
    zstd: bool
    extended: bool
    """Whether a cluster has 32 parts with states of their own."""


def inspect(path: Path) -> Header:
    """The header of a file that may be opened by QEMU.

    Raises:
        ImageInvalid: it is no qcow2 file, or one that reaches for other files, is encrypted, is
            marked as damaged, or uses what is not known here.
    """
    with path.open("rb") as file:
        head = file.read(112)
    if len(head) < 72 or head[:4] != MAGIC:
        raise _bad("it is not a qcow2 file")
    version, backing, _, bits, size, crypt, l1_entries, l1_offset = struct.unpack_from(
        ">IQIIQIIQ", head, 4
    )
    features = compression = 0
    if version == 3 and len(head) >= 104:
        features = struct.unpack_from(">Q", head, 72)[0]
        length = struct.unpack_from(">I", head, 100)[0]
        compression = head[104] if length > 104 and len(head) > 104 else 0
    elif version != 2:
        raise _bad(f"its version is {version}")
    if backing:
        raise _bad("it lies over another file, a backing file, which could be any of this host's")
    if features & _DATA_FILE:
        raise _bad("its data lies in another file, which could be any of this host's")
    if crypt:
        raise _bad("it is encrypted")
    if features & _CORRUPT:
        raise _bad("it is marked as damaged")
    if features & ~(_DIRTY | _COMPRESSION | _EXTENDED) or compression > 1:
        raise _bad("it uses features that are not known here")
    extended = bool(features & _EXTENDED)
    if not (14 if extended else 9) <= bits <= 21:
        raise _bad(f"its clusters have 2^{bits} bytes")
    if not 0 < size <= MAX_VIRTUAL:
        raise _bad(f"its disk would have {size} bytes")
    if l1_entries * 8 > MAX_L1:
        raise _bad("its table is too large")
    return Header(version, bits, size, l1_offset, l1_entries, compression == 1, extended)


class Disk:
    """The disk in a file, to be read anywhere; what was never written is zeros."""

    def __init__(self, path: Path) -> None:
        self.header = header = inspect(path)
        self._cluster = 1 << header.cluster_bits
        self._entry = 16 if header.extended else 8
        self._per_table = self._cluster // self._entry
        self._tables: OrderedDict[int, bytes] = OrderedDict()
        self._clusters: OrderedDict[int, bytes] = OrderedDict()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        l1 = os.pread(self._fd, header.l1_entries * 8, header.l1_offset)
        self._l1 = struct.unpack(f">{len(l1) // 8}Q", l1[: len(l1) // 8 * 8])

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes that a guest sees."""
        return self.header.size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disk.

        Raises:
            ImageInvalid: they lie outside of it, or the file is damaged there.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise _bad("something lies behind its end")
        parts = []
        while length:
            within = offset % self._cluster
            count = min(length, self._cluster - within)
            parts.append(self._in_cluster(offset // self._cluster, within, count))
            offset += count
            length -= count
        return b"".join(parts)

    def _in_cluster(self, number: int, within: int, count: int) -> bytes:
        entry, bitmap = self._lookup(number)
        if entry & _COMPRESSED:
            return self._decompressed(entry)[within : within + count]
        place = entry & _OFFSET
        if self.header.extended:
            return self._in_parts(place, bitmap, within, count)
        if not place or entry & 1:
            return bytes(count)
        return self._at(place + within, count)

    def _in_parts(self, place: int, bitmap: int, within: int, count: int) -> bytes:
        part = self._cluster // 32
        found = []
        while count:
            index, inside = divmod(within, part)
            taken = min(count, part - inside)
            written = bitmap >> index & 1 and not bitmap >> (32 + index) & 1
            found.append(self._at(place + within, taken) if written and place else bytes(taken))
            within += taken
            count -= taken
        return b"".join(found)

    def _lookup(self, number: int) -> tuple[int, int]:
        high, low = divmod(number, self._per_table)
        place = self._l1[high] & _OFFSET if high < len(self._l1) else 0
        if not place:
            return 0, 0
        table = self._tables.get(place)
        if table is None:
            table = self._at(place, self._cluster)
            self._tables[place] = table
            if len(self._tables) > CACHED_TABLES:
                self._tables.popitem(last=False)
        if self.header.extended:
            first, second = struct.unpack_from(">QQ", table, low * 16)
            return first, second
        return struct.unpack_from(">Q", table, low * 8)[0], 0

    def _decompressed(self, entry: int) -> bytes:
        bits = 62 - (self.header.cluster_bits - 8)
        place = entry & ((1 << bits) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> bits
        if (known := self._clusters.get(place)) is not None:
            return known
        # The last sector may be cut off by the end of the file.
        data = os.pread(self._fd, (sectors + 1) * 512 - place % 512, place)
        content = (
            _unzstd(data, self._cluster) if self.header.zstd else _inflated(data, self._cluster)
        )
        if len(content) != self._cluster:
            raise _bad("one of its clusters is damaged")
        self._clusters[place] = content
        if len(self._clusters) > CACHED_CLUSTERS:
            self._clusters.popitem(last=False)
        return content

    def _at(self, place: int, count: int) -> bytes:
        data = os.pread(self._fd, count, place)
        if len(data) != count:
            # As QEMU has it: a file that ends early ends in zeros, up to a cluster.
            if not data and place > os.fstat(self._fd).st_size + self._cluster:
                raise _bad("it ends too early")
            data += bytes(count - len(data))
        return data


def _inflated(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(data, size)
    except zlib.error:
        raise _bad("one of its clusters is damaged") from None


def _unzstd(data: bytes, size: int) -> bytes:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(data)
        return reader.read(size)
    except zstandard.ZstdError:
        raise _bad("one of its clusters is damaged") from None


def _bad(why: str) -> ImageInvalid:
    return ImageInvalid(f"The disk cannot be used: {why}.", hint="Nothing of it was kept.")
