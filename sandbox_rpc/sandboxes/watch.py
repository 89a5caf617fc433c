"""Every change of every sandbox, by whomever: the state folder itself is watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import attrs

from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.host.watch import Watch, open_watch
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes.status import look
from sandbox_rpc.supervisor.state import next_revision


async def changes(layout: Layout) -> AsyncIterator[Sandbox]:
    """The new value of each sandbox that changes, from now on; the newest where several came.

    A sandbox that has stopped leaves no file, and comes as the value `stopped`.
    """
    layout.make()
    seen: dict[str, Sandbox] = {}
    with open_watch() as watch:
        watch.add_folder(layout.rooms)
        _watch_rooms(watch, layout)
        for record in names.every(layout):
            if (sandbox := _look(layout, record.name)) is not None:
                seen[record.name] = sandbox
        while True:
            dirty = set()
            for path, _ in await watch.next():
                dirty |= _meant(layout, path, watch)
            for name in sorted(dirty):
                if (sandbox := _look(layout, name)) is None:
                    continue
                before = seen.get(name)
                if before is not None:
                    if _same(before, sandbox):
                        continue
                    if sandbox.revision <= before.revision:
                        sandbox = attrs.evolve(sandbox, revision=next_revision(before.revision))
                elif sandbox.state is State.STOPPED:
                    # The folder of a first life, that has no value yet.
                    continue
                seen[name] = sandbox
                yield sandbox


def _meant(layout: Layout, path: Path, watch: Watch) -> set[str]:
    """The names of the sandboxes that an event is about."""
    if path == Path("/"):
        _watch_rooms(watch, layout)
        return {record.name for record in names.every(layout)}
    if path.parent == layout.rooms:
        # A room came or went; one that came may have its value already.
        watch.add_folder(path)
        return {path.name}
    if path.parent.parent == layout.rooms and path.name == "sandbox.json":
        return {path.parent.name}
    return set()


def _watch_rooms(watch: Watch, layout: Layout) -> None:
    with suppress(OSError):
        for folder in layout.rooms.iterdir():
            watch.add_folder(folder)


def _look(layout: Layout, name: str) -> Sandbox | None:
    with suppress(SandboxError, OSError):
        return look(layout, names.read(layout, name))
    return None


def _same(one: Sandbox, other: Sandbox) -> bool:
    return attrs.evolve(one, revision=0) == attrs.evolve(other, revision=0)
