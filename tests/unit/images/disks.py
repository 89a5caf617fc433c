"""Disks as strangers make them: a tree, a file system, a partition table, a qcow2 file."""

from __future__ import annotations

import os
import struct
import subprocess
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox_rpc.host import process

SECTOR = 512
MIB = 1 << 20
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ROOT_X86 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
BIOS = "21686148-6449-6e6f-744e-656564454649"
GUID = "11111111-2222-3333-4444-555555555555"
KERNEL = bytes(0x202) + b"HdrS" + b"kernel" * 50_000
INITRD = bytes(range(256)) * 2000

SYSTEM: Mapping[str, bytes | str] = {
    "usr/lib/os-release": b'ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"\n',
    "etc/os-release": "../usr/lib/os-release",
    "usr/lib/systemd/systemd": b"init",
    "usr/sbin/init": "../lib/systemd/systemd",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so": b"",
    "usr/bin/perl": b"",
    "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\ndev:x:1000:1000::/home/dev:/bin/bash\n",
    "boot/vmlinuz-6.12.9": b"old",
    "boot/initrd.img-6.12.9": b"old",
    "boot/vmlinuz-6.12.118": KERNEL,
    "boot/initrd.img-6.12.118": INITRD,
    "boot/vmlinuz-6.13.0": b"without an initrd",
}
"""A Linux system as far as anything here looks; texts are symbolic links."""


def tree(folder: Path, files: Mapping[str, bytes | str] = SYSTEM) -> Path:
    """Lay files into a new folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


def ext(path: Path, content: Path, *options: str, kind: str = "ext4", size: int = 48 * MIB) -> Path:
    """A file system with the content of a folder."""
    with path.open("wb") as file:
        file.truncate(size)
    argv = [process.find("mke2fs"), "-q", "-F", "-t", kind, *options, "-d", str(content), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def gpt(path: Path, parts: Sequence[tuple[str, Path | int]], guid: str = GUID) -> Path:
    """A disk with a partition for each (type, file or size in bytes); the last one has `guid`."""
    entries, place, contents = bytearray(128 * 128), 2048, []
    for number, (kind, content) in enumerate(parts):
        size = content if isinstance(content, int) else content.stat().st_size
        own = guid if number == len(parts) - 1 else str(uuid.uuid4())
        end = place + -(-size // SECTOR) - 1
        entry = uuid.UUID(kind).bytes_le + uuid.UUID(own).bytes_le + struct.pack("<QQ", place, end)
        entries[128 * number : 128 * number + len(entry)] = entry
        if not isinstance(content, int):
            contents.append((place * SECTOR, content))
        place = -(-(end + 1) // 2048) * 2048
    last = place + 33
    with path.open("wb") as file:
        file.truncate((last + 1) * SECTOR)
        # The kernel looks for a GPT only where an MBR says that there is one.
        file.write(
            bytes(446) + struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, last)
        )
        file.write(bytes(48) + b"\x55\xaa")
        for mine, other, table in ((1, last, 2), (last, 1, last - 32)):
            head = bytearray(92)
            struct.pack_into(
                "<8sIIIIQQQQ16sQIII", head, 0, b"EFI PART", 0x10000, 92, 0, 0, mine, other, 34,
                last - 33, bytes(16), table, 128, 128, zlib.crc32(entries),
            )  # fmt: skip
            struct.pack_into("<I", head, 16, zlib.crc32(head))
            file.seek(mine * SECTOR)
            file.write(head)
            file.seek(table * SECTOR)
            file.write(entries)
        for offset, content in contents:
            _copy(content, file.fileno(), offset)
    return path


def _copy(source: Path, target: int, at: int) -> None:
    """What a file has, where it has something: most of a disk is holes."""
    with source.open("rb") as file:
        end = 0
        while True:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            for offset in range(begin, end, MIB):
                piece = os.pread(file.fileno(), min(MIB, end - offset), offset)
                os.pwrite(target, piece, at + offset)


def qcow2(path: Path, raw: Path, *options: str) -> Path:
    """A qcow2 file of a disk; `options` are qemu-img's."""
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def system(folder: Path, *options: str, files: Mapping[str, bytes | str] = SYSTEM) -> Path:
    """A disk in a new folder: BIOS, ESP, root, as Debian's cloud images have it."""
    folder.mkdir(parents=True, exist_ok=True)
    root = ext(folder / "root.ext4", tree(folder / "tree", files))
    raw = gpt(folder / "disk.raw", [(BIOS, MIB), (LINUX, MIB), (ROOT_X86, root)])
    return qcow2(folder / "disk.qcow2", raw, *options)
