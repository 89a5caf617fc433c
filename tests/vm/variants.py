"""Images of other people, derived from the one Debian tree that a run builds.

    python -m tests.vm.variants BASE      builds the default image and these into a cache base

`published` has the layout and the units of the image that is the default, as far as they are known:
GPT with the root as third partition, sshd on 2222 run by dev with a host key of its own, the
identity by fw_cfg, a mount unit of its own. `cloud` is Debian with cloud-init, without a user dev
and without what our agent needs. Both boot by Debian's own initrd.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import zstandard

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build, recipe, reference
from sandbox_rpc.images.recipe import Variant
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.progress import Progress
from tests.unit.images import disks

FILES = Path(__file__).parent / "foreign"
PUBLISHED_REF = "test/published"
CLOUD_REF = "test/cloud"

_NOT_OURS = """
set -eu
rm -f usr/local/sbin/sandbox-agent etc/ssh/sshd_config.d/sandbox.conf
rm -f etc/systemd/system/sandbox-agent.service
rm -f etc/systemd/system/sysinit.target.wants/sandbox-agent.service
printf '/dev/vda3 / ext4 rw,relatime 0 1\\n' > etc/fstab
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sf /usr/lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
"""
PUBLISHED = Variant(
    "published",
    _NOT_OURS
    + """
chown -R 1000:1000 home/dev
cd etc/systemd/system
rm -f multi-user.target.wants/ssh.service sockets.target.wants/ssh.socket
for unit in dev-sshd.service sandbox-hostname.service sandbox-ssh-keys.service \\
    sandbox-proxy.service home-dev-workspace.mount; do
    ln -sf ../$unit multi-user.target.wants/$unit
done
""",
    quiet=False,
    stock_initrd=True,
    files=FILES / "published",
)
CLOUD = Variant(
    "cloud",
    _NOT_OURS
    + """
rm -f etc/sudoers.d/dev etc/systemd/system/home-dev-workspace.mount usr/bin/perl*
rm -f etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf
sed -i '/^dev:/d; s/:dev$/:/; s/,dev$//' etc/passwd etc/shadow etc/group etc/gshadow
rm -rf home/dev
""",
    quiet=False,
    stock_initrd=True,
    packages=("cloud-init",),
    files=FILES / "cloud",
)
WANTED = {reference.BUILT: recipe.TRIM, PUBLISHED_REF: PUBLISHED, CLOUD_REF: CLOUD}


def make(base: Path) -> dict[str, StoredImage]:
    """Build all into a cache base."""
    last = ""

    def report(progress: Progress) -> None:
        nonlocal last
        if progress.message != last:
            print(f"{progress.message} ...", flush=True)
        last = progress.message

    return asyncio.run(build.build_variants(Layout(base), WANTED, report))


def disk_of(image: StoredImage, folder: Path) -> Path:
    """Its file system as the third partition of a disk, as a published image has it: .qcow2.zst."""
    raw, target = folder / "root.raw", folder / "disk.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image.disk), str(raw)], check=True
    )
    small: list[tuple[str, Path | int]] = [(disks.BIOS, 1 << 20), (disks.LINUX, 1 << 20)]
    disks.gpt(target, [*small, (disks.ROOT_X86, raw)])
    raw.unlink()
    disk = disks.qcow2(folder / "disk.qcow2", target)
    target.unlink()
    packed = folder / "debian-13-nocloud-amd64-custom.qcow2.zst"
    with disk.open("rb") as source, packed.open("wb") as out:
        zstandard.ZstdCompressor(level=1, threads=-1).copy_stream(
            source, out, size=disk.stat().st_size
        )
    disk.unlink()
    return packed


if __name__ == "__main__":
    base = Path(sys.argv[1])
    os.umask(0o077)
    shutil.rmtree(base / "kvm-cache" / "staging", ignore_errors=True)
    for image in make(base).values():
        print(f"{image.ref} is built: {image.digest}, {image.size_bytes >> 20} MiB.")
