"""Whether a tag in a registry means something else by now; nothing is downloaded."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio.to_thread
import attrs

from sandbox_rpc.host import locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference, refs, signature
from sandbox_rpc.images.key import Key
from sandbox_rpc.images.pull import persist
from sandbox_rpc.images.registry import Registry
from sandbox_rpc.protocol.errors import ImageUnsigned


async def check(layout: Layout, text: str, key: Key | None = None) -> dict[str, str | None]:
    """Ask, and note the answer beside the name; the digest there, None: the same as here.

    With a `key`, an image that it has not signed counts as none: nobody is told to pull it.

    Raises:
        ImageNotFound: the registry does not have it.
        SettingInvalid: that is no key.
        DownloadFailed: it cannot be asked.
    """
    ref = reference.parse(text)
    if ref.registry is None or ref.digest is not None:
        return {"newer": None}
    source = Registry(ref)

    def look() -> str | None:
        found = source.look()
        if key is not None:
            try:
                signature.check(source, str(ref), found, key)
            except ImageUnsigned:
                return None
        return found

    found = await anyio.to_thread.run_sync(lambda: persist(look, patient=False))
    with locks.held(layout.cache_lock):
        entry = refs.read(layout, str(ref))
        if entry is None:
            return {"newer": None}
        newer = found if found != entry.manifest else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        refs.write(layout, attrs.evolve(entry, newer=newer, checked_at=now))
    return {"newer": newer}
