"""One maker for many starts: the order of locks, with a maker that only pretends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sandbox_rpc.host import locks, process
from sandbox_rpc.host.paths import Layout, TemplateFolder
from sandbox_rpc.images import staging
from sandbox_rpc.protocol.errors import DiskFull, GuestFailed, SandboxError
from sandbox_rpc.protocol.progress import Progress, silent
from sandbox_rpc.qemu import store
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.qemu.store import Origin, Template
from sandbox_rpc.supervisor import template
from sandbox_rpc.supervisor.template import Missing, end_orphans, obtain

KEY = "ab" * 16
ORIGIN = Origin("local/debian-13", f"sha256:{'1' * 64}", "tcg", 64, 2, 8192, "7.2.22")
GROUND: Any = SimpleNamespace(template_key=lambda image: KEY, accelerator=Accelerator.TCG)
IMAGE: Any = None


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "cache")
    made.make()
    return made


class Maker:
    """Takes its time, then makes or fails."""

    def __init__(self, layout: Layout, error: SandboxError | None = None) -> None:
        self.layout = layout
        self.error = error
        self.calls = 0
        self.may_end = anyio.Event()

    async def __call__(self, *_: object) -> Template:
        self.calls += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        folder = self.layout.staging / f"made-{time.monotonic_ns()}"
        folder.mkdir()
        for name in ("memory", "disk.qcow2", "state", "blank.qcow2"):
            (folder / name).write_text(name)
        return store.publish(self.layout, KEY, TemplateFolder(folder), ORIGIN, "")


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(30):
            await scene()

    anyio.run(main)


def install(monkeypatch: pytest.MonkeyPatch, maker: Maker) -> Maker:
    monkeypatch.setattr(template, "_make", maker)
    return maker


def test_many_starters_wait_for_one_maker(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found: list[Template | Missing] = []

    def report(progress: Progress) -> None:
        said.append(progress.message)

    async def scene() -> None:
        maker = install(monkeypatch, Maker(layout))

        async def start() -> None:
            found.append(await obtain(layout, GROUND, IMAGE, report))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(start)
            while said.count("Waiting for a template that is being made") < 5 or not maker.calls:
                await anyio.sleep(0.01)
            maker.may_end.set()
        assert maker.calls == 1

    play(scene)
    assert [one.key for one in found if isinstance(one, Template)] == [KEY] * 5
    lock = locks.acquire(layout.template_lock(KEY))
    assert lock is not None, "nobody holds it at the end"
    os.close(lock)


def test_a_maker_that_is_cancelled_leaves_the_work_to_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        maker = install(monkeypatch, Maker(layout))
        with anyio.move_on_after(0.2):
            await obtain(layout, GROUND, IMAGE, silent)
        assert store.failure(layout, KEY) is None
        maker.may_end.set()
        found = await obtain(layout, GROUND, IMAGE, silent)
        assert isinstance(found, Template)
        assert maker.calls == 2

    play(scene)


def test_a_failure_is_not_repeated_by_each_start(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        maker = install(monkeypatch, Maker(layout, GuestFailed("it refused `rest`")))
        maker.may_end.set()
        for _ in range(2):
            found = await obtain(layout, GROUND, IMAGE, silent)
            assert isinstance(found, Missing)
            assert "refused `rest`" in found.reason
            # A cold start does not hold up others.
            lock = locks.acquire(layout.template_lock(KEY), shared=True)
            assert lock is not None
            os.close(lock)
        assert maker.calls == 1
        maker.error = None
        found = await obtain(layout, GROUND, IMAGE, silent, retry=True)
        assert isinstance(found, Template)

    play(scene)


def test_a_full_disk_is_tried_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        maker = install(monkeypatch, Maker(layout, DiskFull("No space left.")))
        maker.may_end.set()
        for _ in range(2):
            found = await obtain(layout, GROUND, IMAGE, silent)
            assert isinstance(found, Missing)
        assert maker.calls == 2

    play(scene)


def test_a_touched_one_is_thrown_away_and_made_anew_by_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds it starts cold; who asks for a template gets one."""

    async def scene() -> None:
        maker = install(monkeypatch, Maker(layout))
        maker.may_end.set()
        for retry in (False, True):
            assert isinstance(await obtain(layout, GROUND, IMAGE, silent), Template)
            before = maker.calls
            layout.template(KEY).memory.write_text("other")
            found = await obtain(layout, GROUND, IMAGE, silent, retry=retry)
            if retry:
                assert isinstance(found, Template)
                assert found.files.memory.read_text() == "memory"
            else:
                assert isinstance(found, Missing)
                assert "memory has been touched" in found.reason
                assert store.keys(layout) == []
            assert maker.calls == before + retry

    play(scene)


def test_no_room_is_said_before_anything_is_booted(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=100 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    async def scene() -> None:
        found = await obtain(layout, GROUND, IMAGE, silent)
        assert isinstance(found, Missing)
        assert "1024 MiB" in found.reason

    play(scene)
    assert list(layout.staging.iterdir()) == []


def test_a_maker_that_does_not_come_to_an_end_is_not_waited_for(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was stopped by Ctrl-Z."""
    monkeypatch.setattr(template, "START_LIMIT_S", {Accelerator.TCG: 0.0})
    monkeypatch.setattr(template, "WRITING_S", 0.1)
    lock = locks.acquire(layout.template_lock(KEY))
    assert lock is not None

    async def scene() -> None:
        found = await obtain(layout, GROUND, IMAGE, silent)
        assert isinstance(found, Missing)
        assert "does not come to an end" in found.reason

    play(scene)
    os.close(lock)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full")])
def test_a_maker_is_known_to_live_until_its_folder_is_gone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Else a start that looks for orphans meanwhile would end the process the maker runs in."""
    seen: list[bool] = []
    remove = staging._remove

    class Failing:
        def __init__(self, ground: object, image: object, folder: Path, *_: object) -> None:
            assert locks.is_held(folder / template.MAKER)

        async def run(self, *_: object) -> Template:
            raise error

    async def removing(folder: Path) -> None:
        seen.append(locks.is_held(folder / template.MAKER))
        await remove(folder)

    monkeypatch.setattr(template, "_Maker", Failing)
    monkeypatch.setattr(staging, "_remove", removing)

    async def scene() -> None:
        found = await obtain(layout, GROUND, IMAGE, silent)
        assert isinstance(found, Missing)
        assert "making a template has failed" in found.reason

    play(scene)
    assert seen == [True]
    assert list(layout.staging.iterdir()) == []


HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from sandbox_rpc.host import locks
folder = Path(sys.argv[1])
folder.mkdir()
lock, maker = locks.acquire(folder / "lock"), locks.acquire(folder / "maker")
child = subprocess.Popen(["sleep", "600"], pass_fds=[lock], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_the_machine_of_a_killed_maker_is_ended_that_of_a_living_one_is_not(
    layout: Layout,
) -> None:
    """Real processes: the maker holds both locks, its machine has inherited one."""
    folders = [layout.staging / name for name in ("killed", "living")]
    makers, machines = [], []
    try:
        for folder in folders:
            maker = subprocess.Popen(
                [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE
            )
            makers.append(maker)
            assert maker.stdout is not None
            found = process.identify(int(maker.stdout.readline()))
            assert found is not None
            machines.append(found)
        makers[0].send_signal(signal.SIGKILL)
        makers[0].wait()
        assert machines[0].is_alive()

        async def scene() -> None:
            await end_orphans(layout)
            while machines[0].is_alive():
                await anyio.sleep(0.01)
            assert machines[1].is_alive()
            assert await staging.sweep(layout) == [folders[0]]

        play(scene)
    finally:
        for maker in makers:
            maker.kill()
            maker.wait()
            assert maker.stdout is not None
            maker.stdout.close()
        for machine in machines:
            machine.kill()
