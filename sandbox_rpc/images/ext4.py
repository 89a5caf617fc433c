"""ext2, ext3 and ext4 read without mounting, which would take root and the kernel's trust.

After the kernel's Documentation/filesystems/ext4. Read as it lies on the disk: the journal is not
replayed, checksums are not compared (the image's digest protects the content). Everything that
comes from the disk is bounded, so that a damaged one ends in an error and never in a loop.
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections.abc import Iterator

from attrs import frozen

from sandbox_rpc.images.partitions import Readable
from sandbox_rpc.protocol.errors import ImageInvalid

PIECE = 1 << 20
MAX_LINKS = 40
MAX_DEPTH = 5
MAX_FOLDER = 16 << 20
"""Bytes of a folder's entries."""
ROOT = 2

_INCOMPAT_COMPRESSION, _INCOMPAT_JOURNAL_DEVICE, _INCOMPAT_META_BG = 0x1, 0x8, 0x10
_INCOMPAT_64BIT = 0x80
_INCOMPAT_KNOWN = 0x3F7D6
"""filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, dirdata, csum_seed, largedir,
inline_data, encrypt, casefold."""
_EXTENTS, _INLINE, _ENCRYPTED, _COMPRESSED = 0x80000, 0x10000000, 0x800, 0x4


@frozen
class Inode:
    """A file, folder or link."""

    number: int
    mode: int
    size: int
    flags: int
    block: bytes
    """Sixty bytes: where its content is, or the content itself."""
    rest: bytes
    """What follows the first 128 bytes."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Ext4:
    """One file system."""

    def __init__(self, volume: Readable) -> None:
        """Raises:
        ImageInvalid: it is damaged, or uses what is not known here.
        """
        self._volume = volume
        self._block: int
        self._first_block: int
        self._per_group: int
        self._inodes_per_group: int
        self._descriptor: int
        head = volume.read(1024, 1024)
        if len(head) < 1024 or head[0x38:0x3A] != b"\x53\xef":
            raise _bad("it is none")
        (self._inodes, self._blocks) = struct.unpack_from("<II", head, 0)
        self._first_block, log_block = struct.unpack_from("<II", head, 0x14)
        self._per_group, _, self._inodes_per_group = struct.unpack_from("<III", head, 0x20)
        revision = struct.unpack_from("<I", head, 0x4C)[0]
        self._compat, incompat, self._ro_compat = struct.unpack_from("<III", head, 0x5C)
        self.uuid = str(uuid.UUID(bytes=head[0x68:0x78]))
        if log_block > 6 or not self._per_group or not self._inodes_per_group:
            raise _bad("its superblock makes no sense")
        refused = incompat & (~_INCOMPAT_KNOWN | _INCOMPAT_COMPRESSION | _INCOMPAT_JOURNAL_DEVICE)
        if refused:
            raise _bad(f"it uses features that are not known here ({refused:#x})")
        self._block = 1024 << log_block
        self._inode_size = struct.unpack_from("<H", head, 0x58)[0] if revision else 128
        self._wide = bool(incompat & _INCOMPAT_64BIT)
        self._descriptor = struct.unpack_from("<H", head, 0xFE)[0] if self._wide else 32
        if not 128 <= self._inode_size <= self._block or not 32 <= self._descriptor <= self._block:
            raise _bad("its superblock makes no sense")
        meta = struct.unpack_from("<I", head, 0x104)[0]
        self._first_meta = meta if incompat & _INCOMPAT_META_BG else 1 << 32
        self._backups = struct.unpack_from("<II", head, 0x24C)
        self._known: dict[int, Inode] = {}

    def find(self, path: str) -> Inode | None:
        """What is at a path from the root of this file system; links are followed inside it."""
        return self._walk(path, links=0)

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; empty where there is none."""
        folder = self.find(path)
        if folder is None or not folder.is_folder:
            return []
        return sorted(name for name, _ in self._entries(folder) if name not in (".", ".."))

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """A file's content up to `limit` bytes; None where there is no such file."""
        inode = self.find(path)
        if inode is None or not inode.is_file:
            return None
        content = b""
        for piece in self.pieces(inode):
            content += piece
            if len(content) >= limit:
                break
        return content[:limit]

    def pieces(self, inode: Inode) -> Iterator[bytes]:
        """A file's content.

        Raises:
            ImageInvalid: it is encrypted or compressed, or the file system is damaged.
        """
        if inode.flags & (_ENCRYPTED | _COMPRESSED):
            raise _bad("a file in it is encrypted or compressed")
        if inode.flags & _INLINE:
            yield (inode.block + self._inline_rest(inode))[: inode.size]
            return
        left = inode.size
        total = -(-inode.size // self._block)
        runs = self._extents(inode.block, 0) if inode.flags & _EXTENTS else self._mapped(inode)
        at = 0
        for logical, physical, count in runs:
            if logical < at or not count:
                raise _bad("a file's parts overlap")
            count = min(count, total - logical)
            if count <= 0:
                break
            if logical > at:
                yield from self._zeros((logical - at) * self._block)
                left -= (logical - at) * self._block
            for first in range(0, count, PIECE // self._block):
                blocks = min(PIECE // self._block, count - first)
                length = min(blocks * self._block, left)
                yield self._at(physical + first, length) if physical else bytes(length)
                left -= length
            at = logical + count
        if left > 0:
            yield from self._zeros(left)

    def _zeros(self, count: int) -> Iterator[bytes]:
        while count > 0:
            yield bytes(min(count, PIECE))
            count -= PIECE

    def _walk(self, path: str, links: int) -> Inode | None:
        if links > MAX_LINKS:
            return None
        way = [ROOT]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        while parts:
            part = parts.pop(0)
            if part == "..":
                way = way[:-1] or [ROOT]
                continue
            folder = self._inode(way[-1])
            if not folder.is_folder:
                return None
            number = next((n for name, n in self._entries(folder) if name == part), None)
            if number is None:
                return None
            inode = self._inode(number)
            if not inode.is_link:
                way.append(number)
                continue
            links += 1
            target = self._target(inode)
            if links > MAX_LINKS or not target:
                return None
            if target.startswith("/"):
                way = [ROOT]
            parts = [one for one in target.split("/") if one not in ("", ".")] + parts
        return self._inode(way[-1])

    def _target(self, inode: Inode) -> str:
        if inode.size >= 60 or inode.flags & (_EXTENTS | _INLINE):
            content = b"".join(self.pieces(inode)) if inode.size <= 4096 else b""
        else:
            content = inode.block[: inode.size]
        return content.decode(errors="surrogateescape")

    def _entries(self, folder: Inode) -> Iterator[tuple[str, int]]:
        if folder.size > MAX_FOLDER:
            raise _bad("a folder in it is too large")
        if folder.flags & _INLINE:
            # The first four bytes are the parent's number.
            chunks = [folder.block[4:], self._inline_rest(folder)]
        else:
            whole = b"".join(self.pieces(folder))
            chunks = [whole[i : i + self._block] for i in range(0, len(whole), self._block)]
        for chunk in chunks:
            at = 0
            while at + 8 <= len(chunk):
                number, length, name_length = struct.unpack_from("<IHB", chunk, at)
                if length < 8 or at + length > len(chunk):
                    break
                if number and 8 + name_length <= length:
                    name = chunk[at + 8 : at + 8 + name_length]
                    yield name.decode(errors="surrogateescape"), number
                at += length

    def _inode(self, number: int) -> Inode:
        if (known := self._known.get(number)) is not None:
            return known
        if not 1 <= number <= self._inodes:
            raise _bad("it names an inode that it does not have")
        group, index = divmod(number - 1, self._inodes_per_group)
        place = self._inode_table(group) * self._block + index * self._inode_size
        data = self._volume.read(place, self._inode_size)
        if len(data) < 128:
            raise _bad("it ends too early")
        low, high = struct.unpack_from("<I", data, 4)[0], struct.unpack_from("<I", data, 0x6C)[0]
        mode = struct.unpack_from("<H", data, 0)[0]
        size = low | high << 32 if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else low
        flags = struct.unpack_from("<I", data, 0x20)[0]
        inode = Inode(number, mode, size, flags, data[0x28:0x64], data[128:])
        self._known[number] = inode
        return inode

    def _inode_table(self, group: int) -> int:
        per_block = self._block // self._descriptor
        index, within = divmod(group, per_block)
        place = self._descriptors(index, per_block) * self._block + within * self._descriptor
        entry = self._volume.read(place, self._descriptor)
        if len(entry) < 32:
            raise _bad("it ends too early")
        high = struct.unpack_from("<I", entry, 0x28)[0] if self._descriptor >= 64 else 0
        return int(struct.unpack_from("<I", entry, 8)[0]) | high << 32

    def _descriptors(self, index: int, per_block: int) -> int:
        """The block with the descriptors of a run of groups."""
        if index < self._first_meta:
            return 1024 // self._block + 1 + index
        group = index * per_block
        before = int(self._has_superblock(group))
        if self._block == 1024 and index == 0 and self._first_block == 0:
            before += 1
        return group * self._per_group + self._first_block + before

    def _has_superblock(self, group: int) -> bool:
        if group == 0:
            return True
        if self._compat & 0x200:
            return group in self._backups
        return (
            group == 1
            or not self._ro_compat & 1
            or any(_is_power(group, base) for base in (3, 5, 7))
        )

    def _extents(self, node: bytes, depth: int) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, level = struct.unpack_from("<HHHH", node, 0)
        if magic != 0xF30A or depth > MAX_DEPTH or entries > (len(node) - 12) // 12:
            raise _bad("a file's list of parts is damaged")
        for number in range(entries):
            entry = node[12 + 12 * number : 24 + 12 * number]
            if level == 0:
                logical, count, high, low = struct.unpack("<IHHI", entry)
                if count > 32768:  # given room, never written
                    yield logical, 0, count - 32768
                else:
                    yield logical, low | high << 32, count
            else:
                low, high = struct.unpack_from("<IH", entry, 4)
                yield from self._extents(self._at(low | high << 32, self._block), depth + 1)

    def _mapped(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        total = -(-inode.size // self._block)
        pointers = struct.unpack("<15I", inode.block)
        numbers = self._pointers(pointers[:12], 0, total)
        found = 0
        for number in numbers:
            yield found, number, 1
            found += 1
        for level, pointer in enumerate(pointers[12:], start=1):
            if found >= total:
                return
            for number in self._pointers((pointer,), level, total - found):
                yield found, number, 1
                found += 1

    def _pointers(self, pointers: tuple[int, ...], level: int, wanted: int) -> Iterator[int]:
        for pointer in pointers:
            if wanted <= 0:
                return
            span = (self._block // 4) ** level
            if level == 0:
                yield pointer
            elif not pointer:
                for _ in range(min(span, wanted)):
                    yield 0
            else:
                block = self._at(pointer, self._block)
                below = struct.unpack(f"<{self._block // 4}I", block)
                yield from self._pointers(below, level - 1, wanted)
            wanted -= span

    def _inline_rest(self, inode: Inode) -> bytes:
        """The part of a small file's content that is kept as an attribute of its inode."""
        extra = struct.unpack_from("<H", inode.rest, 0)[0] if len(inode.rest) >= 2 else 0
        area = inode.rest[extra:]
        if len(area) < 4 or struct.unpack_from("<I", area, 0)[0] != 0xEA020000:
            return b""
        at = 4
        while at + 16 <= len(area) and area[at : at + 4] != bytes(4):
            length, index, offset, _, size = struct.unpack_from("<BBHII", area, at)
            if index == 7 and area[at + 16 : at + 16 + length] == b"data":
                return area[4 + offset : 4 + offset + size]
            at += 16 + -(-length // 4) * 4
        return b""

    def _at(self, block: int, length: int) -> bytes:
        data = self._volume.read(block * self._block, length)
        if len(data) != length:
            raise _bad("it ends too early")
        return data


def _is_power(number: int, base: int) -> bool:
    power = base
    while power < number:
        power *= base
    return power == number


def _bad(why: str) -> ImageInvalid:
    return ImageInvalid(f"The ext4 file system in the disk cannot be read: {why}.")
