"""Files of this host for the part of a guest's home folder that outlives a stop."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread

from sandbox_rpc.host import carry, files
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import PermissionDenied, SettingInvalid
from sandbox_rpc.protocol.progress import Progress, Report, silent
from sandbox_rpc.protocol.types import PersistPutResult
from sandbox_rpc.sandboxes.status import look
from sandbox_rpc.supervisor.wire import RequestCancelled

STEP = 16 << 20
"""Bytes between two reports."""


async def put(
    layout: Layout,
    record: Record,
    source: str,
    target: str,
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> PersistPutResult:
    """Copy a file or folder to `target`, a path below one of the folders that persist.

    Raises:
        SettingInvalid: `target` is not below one.
        PermissionDenied, DiskFull: it cannot be read, or not be written.
        RequestCancelled: `cancel` was set; nothing is left of it.
    """
    _check(target, look(layout, record).persist)
    folder = layout.home(record.name).persist
    broken = threading.Event()
    reported = 0

    def told(count: int) -> None:
        nonlocal reported
        if broken.is_set():
            raise RequestCancelled
        if count - reported >= STEP:
            reported = count
            message = f"Copying into the sandbox: {count >> 20} MiB"
            anyio.from_thread.run_sync(report, Progress("copy", message))

    def work() -> bool:
        with files.translated(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        try:
            with files.translated(folder / target):
                return carry.carry(Path(source), folder, target, told)
        except OSError as error:
            raise PermissionDenied(
                f"Cannot copy {source} into {record.name}: {error.strerror}.",
                path=error.filename or source,
            ) from error

    async with anyio.create_task_group() as group:

        async def obey(event: anyio.Event) -> None:
            await event.wait()
            broken.set()

        if cancel is not None:
            group.start_soon(obey, cancel)
        added = await anyio.to_thread.run_sync(work)
        group.cancel_scope.cancel()
    return PersistPutResult(added)


def _check(target: str, persisted: list[str] | None) -> None:
    try:
        carry.parts_of(target)
    except ValueError:
        raise SettingInvalid(
            f"{target!r} is not a path below the home folder.",
            hint="Write it with slashes, without a leading one, and without `..`.",
            setting="persist",
        ) from None
    if persisted is not None and not any(target.startswith(f"{one}/") for one in persisted):
        raise SettingInvalid(
            f"{target} is not below a folder that outlives a stop: {', '.join(persisted)}.",
            hint="Name its folder in the setting persist, and start the sandbox anew.",
            setting="persist",
        )
