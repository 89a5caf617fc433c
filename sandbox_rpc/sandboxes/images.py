"""Images and who uses them."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.to_thread

from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build as builder
from sandbox_rpc.images import child, inuse, reference, refs, staging, store
from sandbox_rpc.images.key import read_key
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SandboxError, StateNewer
from sandbox_rpc.protocol.images import Image, ImagePruned, ImagePublished
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.sandboxes import templates
from sandbox_rpc.sandboxes.status import is_alive, look
from sandbox_rpc.supervisor.wire import RequestCancelled

T = TypeVar("T")

KEPT_S = 7 * 86400
"""How long a part of a download waits for somebody to go on with it."""
UNKNOWN = "(a virtual machine that is not known here)"


def users(layout: Layout) -> dict[str, list[str]]:
    """Digest → names of the sandboxes that run on it."""
    found = inuse.under_overlays(layout)
    for record in names.every(layout):
        if is_alive(layout, record.name):
            with suppress(StateNewer):
                digest = look(layout, record).image_digest
                if digest is not None and record.name not in found.get(digest, []):
                    found.setdefault(digest, []).append(record.name)
    return found


def needed_by(layout: Layout, digest: str) -> list[str]:
    """Who would miss an image: sandboxes that run, and any QEMU that has it open."""
    found = users(layout).get(digest, [])
    disk = layout.images / digest.removeprefix("sha256:") / store.DISK
    return found or ([UNKNOWN] if inuse.is_open(disk) else [])


def described(layout: Layout, image: StoredImage) -> Image:
    """An image as the wire has it."""
    return _value(layout, image, users(layout))


def every(layout: Layout) -> list[Image]:
    """All images."""
    used = users(layout)
    found = [*store.list_images(layout), *store.unnamed(layout)]
    return [_value(layout, image, used) for image in found]


async def list_(layout: Layout, *, check: bool = False) -> list[Image]:
    """All images; with `check` the registries are asked first whether tags have moved."""
    if check:
        async with anyio.create_task_group() as group:
            for entry in refs.every(layout):
                if reference.parse(entry.ref).registry is not None and entry.manifest is not None:
                    group.start_soon(_check, layout, entry.ref)
    return await anyio.to_thread.run_sync(every, layout)


async def build(
    layout: Layout,
    ref: str,
    *,
    source: str = "",
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> Image:
    """Build an image in this process; setting `cancel` leaves nothing of it behind.

    Raises:
        RequestCancelled: `cancel` was set.
        SandboxError: it could not be built.
    """
    layout.make()
    image = await _until(lambda: builder.build(layout, ref, report, source=source), cancel)
    return described(layout, image)


async def pull(
    layout: Layout,
    ref: str,
    *,
    key: str = "",
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> Image:
    """Get what a reference means in its registry now; setting `cancel` keeps what has come.

    `key` is the file of the public key that must have signed it; empty: none.

    Raises:
        RequestCancelled: `cancel` was set.
        SandboxError: it could not be had.
    """
    wire = convert.to_wire(read_key(key))
    return await _brought(
        layout, "pull", report, cancel, ref=ref, chosen=True, patient=True, key=wire
    )


async def import_(
    layout: Layout,
    path: str,
    ref: str | None,
    *,
    name: str | None = None,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> Image:
    """Take an image from a file or folder; errors as in `pull`."""
    return await _brought(layout, "import", report, cancel, path=path, ref=ref, name=name)


async def push(
    layout: Layout,
    ref: str,
    to: str,
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> ImagePublished:
    """Put an image into a registry; errors as in `pull`."""
    answer = await _until(lambda: child.run(layout, "push", report, ref=ref, to=to), cancel)
    return ImagePublished(answer["digest"], answer["manifest"])


async def export(
    layout: Layout,
    ref: str,
    path: str,
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> ImagePublished:
    """Write an image as an OCI layout; errors as in `pull`."""
    answer = await _until(lambda: child.run(layout, "export", report, ref=ref, path=path), cancel)
    return ImagePublished(answer["digest"], answer["manifest"])


def remove(layout: Layout, ref: str) -> None:
    """Remove an image, and the templates made from it.

    Raises:
        ImageNotFound: there is none.
        ImageInUse: a running sandbox needs it.
    """
    store.remove(layout, ref, lambda digest: needed_by(layout, digest))
    # What was made from it, nothing can start from any more.
    templates.prune(layout)


async def prune(layout: Layout, *, all_: bool = False) -> ImagePruned:
    """Remove what nothing needs: images without a name, templates of images that are gone, and
    parts of old downloads.

    An image that a stopped sandbox would start from counts as needed, and so does every name;
    with `all_` only what runs does.
    """
    layout.make()
    await staging.sweep(layout)
    return await anyio.to_thread.run_sync(_prune, layout, all_)


def _prune(layout: Layout, all_: bool) -> ImagePruned:
    freed = {}
    if all_:
        for ref in refs.names(layout):
            with suppress(SandboxError):
                digest = store.resolve(layout, ref).digest
                if not needed_by(layout, digest):
                    freed[digest] = store.remove(layout, ref)
        pinned = set()
    else:
        pinned = {record.image.digest for record in names.every(layout) if record.image}
    freed |= store.prune(layout, lambda digest: digest in pinned or bool(needed_by(layout, digest)))
    other = _prune_downloads(layout, all_)
    other += templates.remove_all(layout) if all_ else templates.prune(layout)
    return ImagePruned(sorted(freed), sum(freed.values()) + other)


def _prune_downloads(layout: Layout, all_: bool) -> int:
    freed = 0
    for path in sorted(layout.ingest.glob("*.partial")):
        with locks.held(layout.cache_lock), suppress(FileNotFoundError):
            found = path.stat()
            if all_ or time.time() - found.st_mtime > KEPT_S:
                lock = locks.acquire(layout.ingest_lock(path.stem))
                if lock is None:
                    continue
                freed += found.st_blocks * 512
                path.unlink()
                os.close(lock)
    return freed


async def _check(layout: Layout, ref: str) -> None:
    with suppress(SandboxError):
        await child.run(layout, "check", ref=ref)


async def _brought(
    layout: Layout, verb: str, report: Report, cancel: anyio.Event | None, **params: object
) -> Image:
    layout.make()
    answer = await _until(lambda: child.run(layout, verb, report, **params), cancel)
    return described(layout, store.resolve(layout, answer["ref"]))


async def _until(work: Callable[[], Awaitable[T]], cancel: anyio.Event | None) -> T:
    """The result of `work`, unless `cancel` is set before.

    Raises:
        RequestCancelled: it was.
    """
    result: list[T] = []
    async with anyio.create_task_group() as group:

        async def obey(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        if cancel is not None:
            group.start_soon(obey, cancel)
        result.append(await work())
        group.cancel_scope.cancel()
    if not result:
        raise RequestCancelled
    return result[0]


def _value(layout: Layout, image: StoredImage, used: dict[str, list[str]]) -> Image:
    entry = None if store.is_digest(image.ref) else refs.read(layout, image.ref)
    return Image(
        ref=image.ref,
        digest=image.digest,
        size_bytes=image.size_bytes,
        arch=image.arch,
        created_at=image.created_at,
        in_use_by=used.get(image.digest, []),
        manifest=(entry.manifest if entry else None) or image.manifest,
        newer=entry.newer if entry else None,
    )
