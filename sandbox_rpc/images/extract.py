"""What a stranger's disk has to say: its kernel, initrd and root, and how to talk to its guest.

    python -P -m sandbox_rpc.images.extract DISK FOLDER KERNEL INITRD

A process of its own with limits, since it reads what anyone may have made: kernel and initrd go to
FOLDER under the names given, unless these are `-`; what was found goes to stdout as JSON. Neither
root nor an appliance's virtual machine is needed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define

from sandbox_rpc.images import kernels, partitions, qcow2
from sandbox_rpc.images.ext4 import Ext4, Inode
from sandbox_rpc.images.kernels import Kernel
from sandbox_rpc.images.partitions import Partition, Readable, Window
from sandbox_rpc.protocol.errors import ImageInvalid, SandboxError, from_wire

MAX_BOOT_FILE = 512 << 20
LIMIT_S = 120
MEMORY = 2 << 30
CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
INJECTABLE = 256
"""The first systemd that takes units as credentials."""
PINNABLE = 252
"""The first systemd that takes files as credentials."""
_OTHERS = (
    (0, b"XFSB", "XFS"), (0x10040, b"_BHRfS_M", "btrfs"), (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "LVM"), (0x400, b"\x10\x20\xf5\xf2", "F2FS"), (0, b"hsqs", "squashfs"),
)  # fmt: skip


@define
class Volume:
    """A partition with a file system that can be read."""

    partition: Partition
    files: Ext4

    @property
    def is_root(self) -> bool:
        """Whether a system lies in it."""
        has = self.files.find
        release = has("/etc/os-release") or has("/usr/lib/os-release")
        return release is not None and bool(has("/sbin/init") or has("/usr/lib/systemd/systemd"))


def extract(disk: Path, folder: Path, kernel: str, initrd: str) -> dict[str, Any]:
    """Run this module in a process of its own; the facts it found.

    Raises:
        ImageInvalid: the disk is damaged, or not one that can be booted.
    """
    argv = [sys.executable, "-P", "-m", "sandbox_rpc.images.extract", str(disk), str(folder)]
    try:
        done = subprocess.run(
            [*argv, kernel, initrd], stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
        said = json.loads(done.stdout)
        if "error" in said:
            raise from_wire(said["error"])
        facts: dict[str, Any] = said["facts"]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        raise ImageInvalid("The disk cannot be read: looking into it took too much.") from None
    return facts


def find(disk: Readable, arch: str) -> tuple[Volume, list[Volume]]:
    """The root's volume, and all that can be read.

    Raises:
        ImageInvalid: there is no root that can be read.
    """
    volumes, others = [], []
    for partition in partitions.table(disk):
        window = Window(disk, partition.start, partition.size)
        if window.read(0x438, 2) == b"\x53\xef":
            volumes.append(Volume(partition, Ext4(window)))
        elif name := _other(window):
            others.append(name)
    roots = [volume for volume in volumes if volume.is_root]
    typed = [v for v in roots if v.partition.kind == partitions.ROOT_TYPES.get(arch)]
    if roots:
        return max(typed or roots, key=lambda volume: volume.partition.size), volumes
    if others:
        raise ImageInvalid(
            f"The disk's system lies on {others[0]}, which is not read here; ext4 is.",
            hint="An image with kernel and initrd as layers of their own may have any file system.",
        )
    raise ImageInvalid("The disk has no Linux system on an ext4 partition.")


def _other(window: Window) -> str | None:
    for offset, magic, name in _OTHERS:
        if window.read(offset, len(magic)) == magic:
            return name
    return None


def choose(root: Volume, volumes: list[Volume]) -> tuple[Volume, str, Kernel]:
    """The kernel to boot: its volume, folder and names.

    Raises:
        ImageInvalid: there is none with an initrd.
    """
    places = [(root, "/boot"), (root, "/")]
    places += [(volume, "/") for volume in volumes if volume is not root]
    for volume, folder in places:
        names = volume.files.names(folder)
        links = [folder.rstrip("/") + "/vmlinuz", "/vmlinuz"]
        preferred = [name for link in links if (name := _linked(volume.files, link, names))]
        if found := kernels.choose(names, preferred):
            return volume, folder, found
    raise ImageInvalid(
        "The disk has no kernel with an initrd in /boot.",
        hint="It must hold a Linux that boots by its own kernel, as Debian's cloud images do.",
    )


def _linked(files: Ext4, link: str, names: list[str]) -> str | None:
    """The name in /boot of what a link leads to."""
    if (there := files.find(link)) is None or not there.is_file:
        return None
    for name in names:
        for folder in ("/boot/", "/"):
            same = files.find(folder + name)
            if name != "vmlinuz" and same is not None and same.number == there.number:
                return name
    return None


def facts(root: Volume, version: str, arch: str) -> dict[str, Any]:
    """What is to be known for running the system, from its own files."""
    files = root.files
    release = _pairs(files.read("/usr/lib/os-release") or files.read("/etc/os-release") or b"")
    agent = files.find("/usr/local/sbin/sandbox-agent") is not None
    systemd = _systemd(files)
    injects = not agent and systemd >= INJECTABLE and _has_perl(files)
    port, host_key = _sshd(files)
    found: dict[str, Any] = {
        "arch": arch,
        "suite": release.get("VERSION_CODENAME") or release.get("PRETTY_NAME") or "unknown",
        "variant": "foreign",
        "kernelVersion": version,
        "kernelCommandLine": f"root={root.partition.root_argument} rw "
        f"console={CONSOLES.get(arch, 'ttyS0')} panic=-1",
        "agent": agent or injects,
        "injectsAgent": injects,
        "foreign": not agent,
        "systemd": systemd,
        "sshPort": port,
        "cloudInit": files.find("/usr/bin/cloud-init") is not None,
    }
    return found | ({"hostKeyFile": host_key} if host_key else {})


def check_user(root: Volume, found: dict[str, Any]) -> None:
    """See that there is a dev to log in, or something that makes one.

    Raises:
        ImageInvalid: neither.
    """
    users = root.files.read("/etc/passwd") or b""
    if not re.search(rb"^dev:", users, re.MULTILINE) and not found["cloudInit"]:
        raise ImageInvalid(
            "The disk's system has neither a user dev nor cloud-init, which would make one.",
            hint="Add a user dev with sudo to it, or take a cloud image with cloud-init.",
        )
    if not (found["agent"] or found["cloudInit"] or found["systemd"] >= PINNABLE):
        raise ImageInvalid(
            "The disk's system has no way to be given a host key: "
            f"that takes cloud-init or systemd {PINNABLE}, and it has {found['systemd'] or 'none'}."
        )


def _pairs(text: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in text.decode(errors="replace").splitlines())
    return {key: value.strip("\"'")[:100] for key, _, value in lines}


def _systemd(files: Ext4) -> int:
    """systemd's version, 0 where there is none: the names of its own libraries have it."""
    folders = ["/usr/lib/systemd", "/lib/systemd"]
    folders += [f"/usr/lib/{name}/systemd" for name in files.names("/usr/lib") if "-linux-" in name]
    for folder in folders:
        for name in files.names(folder):
            if match := re.fullmatch(r"libsystemd-(?:core|shared)-(\d{1,4})\b.*\.so", name):
                return int(match[1])
    return 0


def _has_perl(files: Ext4) -> bool:
    return files.find("/usr/bin/perl") is not None


def _sshd(files: Ext4) -> tuple[int, str | None]:
    """Port and ed25519 host key of the sshd that logs dev in, where it is not the usual one.

    The published image runs one of dev's own (`dev-sshd.service`).
    """
    unit = (files.read("/etc/systemd/system/dev-sshd.service") or b"").decode(errors="replace")
    if not unit:
        return _number(files.read("/etc/ssh/sshd_config") or b"", 22), None
    named = re.search(r"^ExecStart=.*\s-f\s*(\S+)", unit, re.MULTILINE)
    path = named[1].replace("%h", "/home/dev") if named else "/home/dev/.ssh/sshd_config"
    config = files.read(path) or b""
    keys = re.findall(rb"^\s*HostKey\s+\"?(/[\w./-]+)", config, re.MULTILINE | re.IGNORECASE)
    texts = [key.decode() for key in keys]
    chosen = next((key for key in texts if "ed25519" in key), texts[0] if texts else None)
    port = _number(config, 2222)
    if asked := re.search(r"^ExecStart=.*\s-p\s*(\d{1,5})\b", unit, re.MULTILINE):
        port = int(asked[1])
    return port, chosen


def _number(config: bytes, otherwise: int) -> int:
    found = re.search(rb"^\s*Port\s+(\d{1,5})\s*$", config, re.MULTILINE | re.IGNORECASE)
    return int(found[1]) if found and 0 < int(found[1]) < 1 << 16 else otherwise


def architecture(head: bytes) -> str | None:
    """What a kernel runs on, by its first bytes."""
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "aarch64"
    return None


def _copy(files: Ext4, inode: Inode, target: Path) -> None:
    if inode.size > MAX_BOOT_FILE:
        raise ImageInvalid(f"The disk's {target.name} is larger than {MAX_BOOT_FILE >> 20} MiB.")
    with target.open("xb") as out:
        for piece in _limited(files.pieces(inode)):
            out.write(piece)


def _limited(pieces: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > MAX_BOOT_FILE:
            raise ImageInvalid("A file in the disk is larger than it says.")
        yield piece


def _run(path: Path, folder: Path, kernel: str, initrd: str) -> dict[str, Any]:
    arch = platform.machine()
    with qcow2.Disk(path) as disk:
        root, volumes = find(disk, arch)
        version = "unknown"
        if kernel != "-":
            volume, place, chosen = choose(root, volumes)
            version = chosen.version
            for name, target in ((chosen.name, kernel), (chosen.initrd, initrd)):
                inode = volume.files.find(f"{place}/{name}")
                if inode is None or not inode.is_file:
                    raise ImageInvalid(f"The disk's {name} is not a file.")
                _copy(volume.files, inode, folder / target)
            with (folder / kernel).open("rb") as file:
                made_for = architecture(file.read(1024))
            if made_for is not None and made_for != arch:
                raise ImageInvalid(f"The image is for {made_for}, and this machine is {arch}.")
        found = facts(root, version, arch)
        check_user(root, found)
        found["diskMib"] = -(-disk.size >> 20)
    return found


def main(arguments: list[str]) -> int:
    """Extract, within limits that no sound disk comes near."""
    disk, folder, kernel, initrd = arguments
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, LIMIT_S // 2),
        (resource.RLIMIT_FSIZE, MAX_BOOT_FILE + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    os.umask(0o077)
    try:
        found = _run(Path(disk), Path(folder), kernel, initrd)
    except SandboxError as error:
        print(json.dumps({"error": error.to_wire()}))
        return 1
    except (ArithmeticError, LookupError, ValueError, MemoryError, RecursionError) as error:
        # Whatever a damaged disk makes the readers trip over.
        why = ImageInvalid(f"The disk is damaged ({type(error).__name__}).")
        print(json.dumps({"error": why.to_wire()}))
        return 1
    print(json.dumps({"facts": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
