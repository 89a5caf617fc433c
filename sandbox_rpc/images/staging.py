"""Folders for images in the making; what a killed builder leaves behind is found by its lock."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from attrs import frozen

from sandbox_rpc.host import files, locks, process
from sandbox_rpc.host.paths import Layout

LOCK = "lock"


@frozen
class Staging:
    """One folder, ours as long as the descriptor or a copy of it is open."""

    folder: Path
    lock: int
    """Handed to every child, so that the folder is not swept while one of them writes to it."""


def as_root(argv: Sequence[str]) -> list[str]:
    """The command as root of a user namespace over our subordinate ids; for root as it is.

    Raises:
        ToolMissing: unshare or newuidmap is not installed.
    """
    if os.geteuid() == 0:
        return list(argv)
    process.find("newuidmap")
    return [process.find("unshare"), "--map-auto", "--map-root-user", "--", *argv]


@asynccontextmanager
async def staging(layout: Layout) -> AsyncIterator[Staging]:
    """A fresh folder (0700), removed at the end; folders of builders that died go first."""
    layout.make()
    await sweep(layout)
    async with locks.held_async(layout.cache_lock):
        with files.translated(layout.staging):
            folder = Path(tempfile.mkdtemp(dir=layout.staging))
        lock = locks.acquire(folder / LOCK)
        assert lock is not None  # the folder is new, and nobody sweeps while the cache is locked
    try:
        yield Staging(folder, lock)
    finally:
        with anyio.CancelScope(shield=True):
            await _remove(folder)
            os.close(lock)


async def sweep(layout: Layout) -> list[Path]:
    """Remove the folders whose lock nobody holds; what was removed."""
    claimed: list[tuple[Path, int | None]] = []
    async with locks.held_async(layout.cache_lock):
        for folder in sorted(layout.staging.iterdir()):
            if folder.is_dir() and not (folder / LOCK).exists():
                claimed.append((folder, None))
            elif folder.is_dir() and (lock := locks.acquire(folder / LOCK)) is not None:
                claimed.append((folder, lock))
    for folder, lock in claimed:
        with anyio.CancelScope(shield=True):
            await _remove(folder)
            if lock is not None:
                os.close(lock)
    return [folder for folder, _ in claimed]


async def _remove(folder: Path) -> None:
    # One file system only: a mount left in a tree leads to the host's own /dev.
    argv = ["rm", "-rf", "--one-file-system", "--", str(folder)]
    done = await process.run(argv, check=False)
    if done.returncode != 0 and os.geteuid() != 0:
        # An ordinary user's trees belong to the subordinate ids.
        await anyio.run_process(as_root(argv), stdin=subprocess.DEVNULL, check=False)
