"""A sandbox's own disk: what differs from the image, gone when it stops."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sandbox_rpc.host import files, process
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import DiskFull, ImageInvalid, PermissionDenied


async def create_overlay(path: Path, image: StoredImage, size_mib: int) -> None:
    """Make a qcow2 overlay over the image at `path`, 0600, at least as large as the image.

    Takes 200 kB until the guest writes; the guest grows its file system to `size_mib` (MiB).

    Raises:
        DiskFull: no room.
        ToolMissing: qemu-img is not installed.
        ImageInvalid: qemu-img refuses the image.
    """
    size = max(size_mib, image.disk_mib)
    with files.translated(path):
        # Made first, so that no moment has it readable by others.
        path.touch(mode=0o600)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    argv += ["-b", str(image.disk.absolute()), str(path), f"{size}M"]
    try:
        await process.run(argv)
    except subprocess.CalledProcessError as error:
        raise _translated(error, path, image) from error


def _translated(
    error: subprocess.CalledProcessError, path: Path, image: StoredImage
) -> DiskFull | PermissionDenied | ImageInvalid:
    said = error.stderr.decode(errors="replace").strip()
    if "No space left on device" in said or "quota exceeded" in said:
        return DiskFull(f"No space left to write {path}.", path=str(path))
    if "Permission denied" in said:
        return PermissionDenied(f"Cannot make a disk over {image.disk}: {said}", path=str(path))
    return ImageInvalid(f"Cannot make a disk over the image {image.ref}: {said}", ref=image.ref)


async def create_blank(path: Path, size_mib: int) -> None:
    """Make an empty qcow2 disk at `path` that becomes an overlay where it is used as one.

    Raises:
        DiskFull: no room.
        ToolMissing: qemu-img is not installed.
    """
    with files.translated(path):
        path.touch(mode=0o600)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{size_mib}M"]
    try:
        await process.run(argv)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise DiskFull(f"Cannot make {path}: {said}", path=str(path)) from error
