"""An image from a file or folder of this machine into the store: `image import`."""

from __future__ import annotations

import hashlib
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import layout as oci
from sandbox_rpc.images import qcow2, refs, store
from sandbox_rpc.images.pull import look_into, obtain, seal
from sandbox_rpc.images.staging import staging
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.images.transfer import Transfer
from sandbox_rpc.images.unpack import PIECE, QCOW2, Sparse, check_frame, check_room, unzstd
from sandbox_rpc.protocol.errors import ImageInvalid, ImageNotFound, PermissionDenied
from sandbox_rpc.protocol.progress import Progress, Report


async def bring(
    layout: Layout, path: str, ref: str | None, name: str | None, report: Report
) -> StoredImage:
    """Take an OCI layout (a folder or a tar), a qcow2 file or one compressed by zstd.

    `ref` is the name it gets, by default `local/` and what the file is called; `name` chooses among
    several images of a layout.

    Raises:
        ImageNotFound: there is nothing at the path, or no name to give.
        ImageInvalid: it is none of these, or no image for a sandbox.
        DiskFull: no room.
    """
    source = Path(path)
    if not source.exists():
        raise ImageNotFound(f"There is nothing at {path}.", hint="Check the path.", ref=path)
    ref = refs.normalize(ref or f"local/{suggested(source)}")
    if source.is_dir() or await anyio.to_thread.run_sync(_is_tar, source):
        found = oci.Layout(source)
        return await obtain(layout, ref, found, found.top(name), report, chosen=True)
    async with staging(layout) as place:
        folder = place.folder / "image"
        folder.mkdir(mode=0o700)
        await anyio.to_thread.run_sync(_copy, source, folder / store.DISK, report)
        report(Progress("image", "Looking into the disk", 80))

        def publish() -> StoredImage:
            facts = look_into(folder)
            facts["createdAt"] = facts["createdAt"] or _changed(source)
            return store.publish(layout, ref, folder, seal(folder, facts))

        return await anyio.to_thread.run_sync(publish)


def suggested(path: Path) -> str:
    """A name for an image from what its file is called."""
    stem = path.name.lower()
    while (shorter := re.sub(r"\.(zst|qcow2|img|tar|oci)$", "", stem)) != stem:
        stem = shorter
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "imported"


def _copy(source: Path, target: Path, report: Report) -> None:
    try:
        size = source.stat().st_size
        with source.open("rb") as file, Sparse(target) as out:
            head = file.read(18)
            file.seek(0)
            transfer = Transfer(report, "Copying the disk", size, share=(0, 80))
            if head[:4] == QCOW2:
                # Before a gigabyte is copied.
                qcow2.inspect(source)
                check_room(target.parent, source.stat().st_blocks * 512)
                while piece := file.read(PIECE):
                    out.write(memoryview(piece))
                    transfer.tell(file.tell())
            else:
                check_room(target.parent, check_frame(head))
                unzstd(file, out)
    except PermissionError as error:
        raise PermissionDenied(
            f"Cannot read {source}: {error.strerror}.", path=str(source)
        ) from error
    qcow2.inspect(target)


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except PermissionError as error:
        raise PermissionDenied(f"Cannot read {path}: {error.strerror}.", path=str(path)) from error
    except OSError as error:
        raise ImageInvalid(f"{path} cannot be read: {error.strerror}.", hint="") from error


def _changed(path: Path) -> str:
    """When the file was written: better than no time at all."""
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC).isoformat(timespec="seconds")


def digest_of(path: Path) -> str:
    """`sha256:…` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
