"""Whether a tag in a registry means something else by now; nothing is downloaded."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio.to_thread
import attrs

from sandbox_rpc.host import locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference, refs
from sandbox_rpc.images.pull import persist
from sandbox_rpc.images.registry import Registry


async def check(layout: Layout, text: str) -> dict[str, str | None]:
    """Ask, and note the answer beside the name; the digest there, None: the same as here.

    Raises:
        ImageNotFound: the registry does not have it.
        DownloadFailed: it cannot be asked.
    """
    ref = reference.parse(text)
    if ref.registry is None or ref.digest is not None:
        return {"newer": None}
    found = await anyio.to_thread.run_sync(lambda: persist(Registry(ref).look, patient=False))
    with locks.held(layout.cache_lock):
        entry = refs.read(layout, str(ref))
        if entry is None:
            return {"newer": None}
        newer = found if found != entry.manifest else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        refs.write(layout, attrs.evolve(entry, newer=newer, checked_at=now))
    return {"newer": newer}
