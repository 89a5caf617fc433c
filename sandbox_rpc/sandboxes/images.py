"""Images and who uses them."""

from __future__ import annotations

import anyio

from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build as builder
from sandbox_rpc.images import store
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.types import Image
from sandbox_rpc.sandboxes.status import is_alive, look
from sandbox_rpc.supervisor.wire import RequestCancelled


def users(layout: Layout) -> dict[str, list[str]]:
    """Digest → names of the sandboxes that run on it."""
    found: dict[str, list[str]] = {}
    for record in names.every(layout):
        if is_alive(layout, record.name):
            digest = look(layout, record).image_digest
            if digest is not None:
                found.setdefault(digest, []).append(record.name)
    return found


def described(layout: Layout, image: StoredImage) -> Image:
    """An image as the wire has it."""
    return _value(image, users(layout))


def every(layout: Layout) -> list[Image]:
    """All images."""
    used = users(layout)
    return [_value(image, used) for image in store.list_images(layout)]


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
    result: list[StoredImage] = []
    async with anyio.create_task_group() as group:

        async def obey(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        if cancel is not None:
            group.start_soon(obey, cancel)
        result.append(await builder.build(layout, ref, report, source=source))
        group.cancel_scope.cancel()
    if not result:
        raise RequestCancelled
    return described(layout, result[0])


def remove(layout: Layout, ref: str) -> None:
    """Remove an image.

    Raises:
        ImageNotFound: there is none.
        ImageInUse: a running sandbox needs it.
    """
    store.remove(layout, ref, lambda digest: users(layout).get(digest, []))


def _value(image: StoredImage, used: dict[str, list[str]]) -> Image:
    return Image(
        ref=image.ref,
        digest=image.digest,
        size_bytes=image.size_bytes,
        arch=image.arch,
        created_at=image.created_at,
        in_use_by=used.get(image.digest, []),
    )
