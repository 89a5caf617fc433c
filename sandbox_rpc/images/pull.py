"""An image from a registry or a layout into the store: once, verified, with its name at the end.

Runs in the process of `images/worker.py`, where being cancelled is being killed: at any moment the
store is whole, and what has come lies in `ingest/` for the next pull.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import extract, manifest, qcow2, reference, signature, store
from sandbox_rpc.images.fetch import Retries, Source, fetch
from sandbox_rpc.images.http import Transient
from sandbox_rpc.images.key import Key, remember
from sandbox_rpc.images.manifest import Artifact, Blob
from sandbox_rpc.images.registry import Registry
from sandbox_rpc.images.staging import staging
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.images.transfer import Transfer
from sandbox_rpc.protocol.errors import DownloadFailed, ImageInvalid, StateNewer
from sandbox_rpc.protocol.progress import Progress, Report

T = TypeVar("T")

LOOK_AGAIN_S = 0.25
MAX_COMMAND_LINE = 2047
CONFIG = "config.json"


async def pull(
    layout: Layout,
    text: str,
    report: Report,
    *,
    chosen: bool,
    patient: bool = True,
    key: Key | None = None,
) -> StoredImage:
    """Get what a reference means now; a manifest that is here already is only named.

    `chosen`: somebody asked for it by name, so folders move on to it. Without `patient` a registry
    that does not answer is given up at once. With a `key` it has to have signed the image.

    Raises:
        ImageNotFound: the registry does not have it.
        ImageUnsigned: the key has not signed it.
        DownloadFailed, DigestMismatch, ImageInvalid, DiskFull: as it says.
    """
    ref = reference.parse(text)
    if ref.registry is None:
        raise DownloadFailed(
            f"{ref} names no registry.",
            hint="Images of this machine come from `sandbox image build` and `image import`.",
            ref=str(ref),
        )
    return await obtain(
        layout, str(ref), Registry(ref), ref.manifest, report, chosen=chosen, patient=patient,
        key=key,
    )  # fmt: skip


async def obtain(
    layout: Layout,
    ref: str,
    source: Source,
    name: str,
    report: Report,
    *,
    chosen: bool,
    patient: bool = True,
    key: Key | None = None,
) -> StoredImage:
    """Get the manifest `name` from a source and all that it names; errors as in `pull`."""
    report(Progress("image", f"Asking for {ref}", 0))
    top, artifact = await anyio.to_thread.run_sync(_look, source, ref, name, patient, key)

    def known() -> StoredImage | None:
        image = store.by_manifest(layout, artifact.digest) or store.by_manifest(layout, top)
        if image is None:
            return None
        with locks.held(layout.cache_lock):
            if not image.folder.is_dir():
                return None  # removed just now
            if key is not None:
                remember(image.folder, key)
            store.name_image(layout, ref, image.digest, manifest=top, chosen=chosen)
        return store.resolve(layout, ref)

    if (image := known()) is not None:
        return image
    total = sum(blob.size for blob in artifact.blobs)
    async with _turn(layout, artifact.disk, report, total):
        if (image := known()) is not None:
            return image
        async with staging(layout) as place:
            folder = place.folder / "image"
            folder.mkdir(mode=0o700)
            transfer = Transfer(report, "Downloading the image", total, share=(0, 95))
            await anyio.to_thread.run_sync(_fetch, layout, source, artifact, folder, ref, transfer)
            report(Progress("image", "Looking into the disk", 95))
            digest = await anyio.to_thread.run_sync(_describe, folder, artifact, ref)
            report(Progress("image", "Writing it to the disk", 97))
            image = await anyio.to_thread.run_sync(
                lambda: store.publish(layout, ref, folder, digest, manifest=top, chosen=chosen)
            )
            if key is not None:
                with locks.held(layout.cache_lock):
                    remember(image.folder, key)
            return image


def persist(work: Callable[[], T], *, patient: bool = True) -> T:
    """The result of a small request, which is tried again where that can help.

    Raises:
        DownloadFailed: it could not be had.
    """
    import time

    retries = Retries(attempts=4 if patient else 1)
    for attempt in range(1, retries.attempts + 1):
        try:
            return work()
        except Transient as failure:
            if attempt == retries.attempts:
                raise DownloadFailed(
                    f"The registry cannot be reached: {failure}.",
                    hint="Check the network, and the proxy variables if there is a proxy.",
                ) from failure
            time.sleep(failure.wait_s or retries.first_pause_s * attempt)
    raise AssertionError("unreachable")


def _look(
    source: Source, ref: str, name: str, patient: bool, key: Key | None
) -> tuple[str, Artifact]:
    """The digest of what `name` means, and the artifact for this machine."""
    content = persist(lambda: source.manifest(name), patient=patient)
    top = digest = manifest.digest_of(content)
    if key is not None:
        # An index is signed as a whole: it holds the digests of what it lists.
        persist(lambda: signature.check(source, ref, top, key))
    found = manifest.parse(content, ref)
    entry = manifest.chosen(found, ref, platform.machine())
    if entry is not None:
        content = persist(lambda: source.manifest(entry.digest))
        digest = manifest.digest_of(content)
        found = manifest.parse(content, ref)
    return top, manifest.artifact(found, ref, digest)


@asynccontextmanager
async def _turn(layout: Layout, blob: Blob, report: Report, total: int) -> AsyncIterator[None]:
    """Be the one process that downloads a blob; who waits sees how far the other has come."""
    path = layout.ingest_lock(blob.hex)
    transfer: Transfer | None = None
    while (lock := locks.acquire(path)) is None:
        transfer = transfer or Transfer(
            report, "Waiting for another download of the same image", total, share=(0, 95)
        )
        try:
            transfer.tell(layout.partial(blob.hex).stat().st_size)
        except FileNotFoundError:
            transfer.tell(0)
        await anyio.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(lock)


def _fetch(
    layout: Layout, source: Source, artifact: Artifact, folder: Path, ref: str, transfer: Transfer
) -> None:
    done = 0
    targets = {
        id(artifact.config): CONFIG, id(artifact.kernel): store.KERNEL,
        id(artifact.initrd): store.INITRD, id(artifact.disk): store.DISK,
    }  # fmt: skip
    for blob in artifact.blobs:
        before = done
        fetch(
            source, blob, layout.partial(blob.hex), folder / targets[id(blob)], ref=ref,
            verbatim=blob is not artifact.disk, tell=lambda count: transfer.tell(before + count),  # noqa: B023
        )  # fmt: skip
        done += blob.size


def _describe(folder: Path, artifact: Artifact, ref: str) -> str:
    """Find or take over what there is to know; the image's digest."""
    header = qcow2.inspect(folder / store.DISK)
    config = folder / CONFIG
    with files.translated(folder):
        if artifact.config and artifact.kernel and artifact.initrd:
            facts = checked(config.read_bytes(), ref)
            facts["diskMib"] = -(-header.size >> 20)
        else:
            facts = look_into(folder, artifact)
        config.unlink(missing_ok=True)
        facts["manifest"] = artifact.digest
        return seal(folder, facts, layer=artifact.disk.digest)


def look_into(folder: Path, artifact: Artifact | None = None) -> dict[str, Any]:
    """The facts of a stranger's disk; its kernel and initrd come out of it where they are missing.

    Raises:
        ImageInvalid: it cannot be booted.
    """
    complete = (folder / store.KERNEL).exists() and (folder / store.INITRD).exists()
    kernel, initrd = ("-", "-") if complete else (store.KERNEL, store.INITRD)
    if not complete:
        for name in (store.KERNEL, store.INITRD):
            (folder / name).unlink(missing_ok=True)
    found = extract.extract(folder / store.DISK, folder, kernel, initrd)
    return {"createdAt": _time(artifact.created_at if artifact else None), **found}


def seal(folder: Path, facts: Mapping[str, Any], *, layer: str | None = None) -> str:
    """Make the files of an image read-only and describe them; its digest."""
    for path in folder.iterdir():
        path.chmod(0o444)
    return store.describe(folder, facts, layer=layer)


def checked(content: bytes, ref: str) -> dict[str, Any]:
    """What the builder of an image of our own shape says about it, as far as it can be.

    Raises:
        ImageInvalid: it makes no sense here.
        StateNewer: a newer version has written it.
    """
    try:
        said = json.loads(content)
        if said["schema"] > store.SCHEMA:
            raise StateNewer(f"The image {ref} was made by a newer version.", ref=ref)
        line, arch = said["kernelCommandLine"], said["arch"]
        fine = (
            isinstance(line, str)
            and len(line.encode()) <= MAX_COMMAND_LINE
            and line.isprintable()
            and type(said["sshPort"]) is int
            and 0 < said["sshPort"] < 1 << 16
            and all(
                type(said.get(key, False)) is bool for key in ("agent", "foreign", "injectsAgent")
            )
            and isinstance(said.get("hostKeyFile", ""), str)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        fine, arch = False, ""
    if not fine:
        raise ImageInvalid(f"What {ref} says about itself makes no sense.", ref=ref)
    if arch != platform.machine():
        raise ImageInvalid(
            f"{ref} is for {arch}, and this machine is {platform.machine()}.", ref=ref
        )
    facts = {key: said[key] for key in store.FACTS if key in said}
    return facts | {"createdAt": _time(said.get("createdAt"))}


def _time(text: object) -> str:
    """A time as it was written down, if it is one."""
    try:
        return datetime.fromisoformat(str(text)).isoformat(timespec="seconds")
    except ValueError:
        return ""
