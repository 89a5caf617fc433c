"""An image of the store as an artifact of our own shape: pushed to a registry or written out.

The same image packed by the same version of zstd gives the same bytes, so pushing it again uploads
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import zstandard
from attrs import frozen

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import layout as oci
from sandbox_rpc.images import manifest, reference, store
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.images.pull import persist
from sandbox_rpc.images.registry import Registry
from sandbox_rpc.images.staging import staging
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.images.transfer import Transfer
from sandbox_rpc.images.unpack import check_room
from sandbox_rpc.protocol.errors import DownloadFailed
from sandbox_rpc.protocol.progress import Progress, Report

LEVEL = 9
PIECE = 1 << 20


@frozen
class Packed:
    """A manifest, and the file of each blob it names."""

    manifest: bytes
    blobs: Mapping[Blob, Path]


def pack(image: StoredImage, folder: Path, report: Report) -> Packed:
    """Compress an image's disk into a folder and describe all of it.

    Raises:
        DiskFull: no room.
    """
    target = folder / "disk.zst"
    size = image.disk.stat().st_size
    check_room(folder, size // 2)
    transfer = Transfer(report, "Compressing the disk", size, share=(0, 50))
    # With threads the output is the same for every number of them.
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_content_size=True)
    digest, done = hashlib.sha256(), 0
    with files.translated(target), image.disk.open("rb") as source, target.open("xb") as out:
        for piece in compressor.read_to_iter(source, size=size, read_size=PIECE):
            out.write(piece)
            digest.update(piece)
            done = source.tell()
            transfer.tell(done)
    disk = Blob(
        f"sha256:{digest.hexdigest()}", target.stat().st_size, manifest.DISK, "disk.qcow2.zst"
    )
    config = image.folder / store.METADATA
    blobs = {
        _blob(config, manifest.CONFIG, ""): config,
        disk: target,
        _blob(image.kernel, manifest.KERNEL, store.KERNEL): image.kernel,
        _blob(image.initrd, manifest.INITRD, store.INITRD): image.initrd,
    }
    first, second, third, fourth = blobs
    return Packed(manifest.own(first, second, third, fourth, image.created_at, image.arch), blobs)


async def push(layout: Layout, ref: str, to: str, report: Report) -> dict[str, str]:
    """Push an image to where `to` says, and name it so here; digest of its manifest.

    Raises:
        ImageNotFound: there is no such image.
        DownloadFailed: the registry cannot be reached or does not take it.
        DiskFull: no room for the compressed disk.
    """
    image = store.resolve(layout, ref)
    target = reference.parse(to)
    if target.registry is None or target.digest is not None:
        raise DownloadFailed(
            f"{to} is no place to push to.", hint="Name a registry and a tag: example.org/image:tag"
        )
    registry = Registry(target, push=True)
    async with staging(layout) as place:
        packed = await anyio.to_thread.run_sync(pack, image, place.folder, report)
        await anyio.to_thread.run_sync(_upload, registry, packed, report)
    digest = manifest.digest_of(packed.manifest)
    with locks.held(layout.cache_lock):
        store.name_image(layout, str(target), image.digest, manifest=digest)
    return {"digest": image.digest, "ref": str(target), "manifest": digest}


async def export(layout: Layout, ref: str, path: str, report: Report) -> dict[str, str]:
    """Write an image as an OCI layout; digest of its manifest.

    Raises:
        ImageNotFound: there is no such image.
        PermissionDenied: something is at the path, or it cannot be written.
        DiskFull: no room.
    """
    image = store.resolve(layout, ref)
    async with staging(layout) as place:
        packed = await anyio.to_thread.run_sync(pack, image, place.folder, report)
        total = sum(blob.size for blob in packed.blobs)
        transfer = Transfer(report, "Writing the layout", total, share=(50, 100))

        def write() -> None:
            oci.write(
                Path(path), packed.manifest,
                {blob: _opener(file) for blob, file in packed.blobs.items()},
                _tag(image), transfer.tell,
            )  # fmt: skip

        await anyio.to_thread.run_sync(write)
    return {"digest": image.digest, "path": path, "manifest": manifest.digest_of(packed.manifest)}


def _upload(registry: Registry, packed: Packed, report: Report) -> None:
    total = sum(blob.size for blob in packed.blobs)
    transfer = Transfer(report, "Uploading the image", total, share=(50, 100))
    done = 0
    for blob, path in packed.blobs.items():
        before = done

        def pieces(path: Path = path, before: int = before) -> Iterator[bytes]:
            sent = before
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    yield piece
                    sent += len(piece)
                    transfer.tell(sent)

        def upload(blob: Blob = blob, path: Path = path) -> None:
            if not registry.has(blob):
                registry.upload(blob, pieces())

        persist(upload)
        done += blob.size
        transfer.tell(done)
    persist(lambda: registry.put_manifest(packed.manifest))
    report(Progress("image", "The image is pushed", 100))


def _tag(image: StoredImage) -> str:
    """What it is called in a layout, where names are tags."""
    if store.is_digest(image.ref):
        return reference.TAG
    return reference.parse(image.ref).tag or reference.TAG


def _opener(path: Path) -> oci.Content:
    return lambda: path.open("rb")


def _blob(path: Path, media_type: str, title: str) -> Blob:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Blob(f"sha256:{digest}", path.stat().st_size, media_type, title)
