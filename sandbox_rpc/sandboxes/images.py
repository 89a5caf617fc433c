"""Images and who uses them."""

from __future__ import annotations

from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import store
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.types import Image
from sandbox_rpc.sandboxes.status import is_alive, look


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
