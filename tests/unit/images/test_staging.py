"""Folders of builds: removed at the end, swept where the builder has died, left where it lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host import locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images.staging import LOCK, staging, sweep


def test_a_folder_of_ones_own_that_goes_at_the_end(layout: Layout) -> None:
    async def main() -> None:
        async with staging(layout) as place:
            assert place.folder.parent == layout.staging
            assert place.folder.stat().st_mode & 0o777 == 0o700
            assert locks.is_held(place.folder / LOCK)
            (place.folder / "tree").mkdir()
            (place.folder / "tree" / "file").write_text("x")
        assert list(layout.staging.iterdir()) == []

    anyio.run(main)


def test_cancelling_removes_the_folder(layout: Layout) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.05):
            async with staging(layout) as place:
                (place.folder / "file").write_text("x")
                await anyio.sleep_forever()
        assert list(layout.staging.iterdir()) == []

    anyio.run(main)


def abandoned(layout: Layout, name: str) -> Path:
    folder = layout.staging / name
    (folder / "tree").mkdir(parents=True)
    (folder / "tree" / "half").write_text("x")
    return folder


def test_what_a_killed_builder_left_is_swept_by_the_next(layout: Layout) -> None:
    dead = abandoned(layout, "dead")
    (dead / LOCK).touch()
    older = abandoned(layout, "without-a-lock")

    async def main() -> None:
        async with staging(layout) as place:
            assert [*layout.staging.iterdir()] == [place.folder]

    anyio.run(main)
    assert not dead.exists()
    assert not older.exists()


def test_a_folder_whose_builder_lives_is_left_alone(layout: Layout) -> None:
    alive = abandoned(layout, "alive")
    held = locks.acquire(alive / LOCK)
    assert held is not None
    assert anyio.run(sweep, layout) == []
    assert (alive / "tree" / "half").exists()
    os.close(held)
    assert anyio.run(sweep, layout) == [alive]
    assert not alive.exists()


def test_a_child_that_outlives_the_builder_keeps_the_folder(layout: Layout) -> None:
    folder = abandoned(layout, "orphan")
    lock = locks.acquire(folder / LOCK)
    assert lock is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE, pass_fds=[lock],
    )  # fmt: skip
    os.close(lock)
    try:
        assert anyio.run(sweep, layout) == []
        assert folder.exists()
    finally:
        child.communicate()
    assert anyio.run(sweep, layout) == [folder]


def test_two_builders_have_two_folders(layout: Layout) -> None:
    async def main() -> None:
        async with staging(layout) as one, staging(layout) as other:
            assert one.folder != other.folder
            assert one.folder.exists()
            assert other.folder.exists()

    anyio.run(main)


@pytest.mark.parametrize("name", ["file", "lock"])
def test_stray_files_are_no_builders(layout: Layout, name: str) -> None:
    (layout.staging / name).write_text("x")
    assert anyio.run(sweep, layout) == []
