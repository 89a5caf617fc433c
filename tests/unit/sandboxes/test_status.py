"""How a sandbox is, as files and locks tell."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host import files, locks, names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import Nested, SandboxNotFound, WorkspaceRefused
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes import status
from sandbox_rpc.sandboxes.start import Start, start


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "cache")


@pytest.fixture
def record(layout: Layout) -> Record:
    return names.allot(layout, "/projects/app")


def write(layout: Layout, record: Record, state: State) -> None:
    room = layout.room(record.name)
    room.folder.mkdir(exist_ok=True)
    value = Sandbox(record.name, state, record.workspace, pid=4, phase="boot")
    files.replace(room.state, convert.dumps(value))


def test_never_started_and_damaged(layout: Layout, record: Record) -> None:
    """Nothing there is stopped, and so is what nobody can read."""
    assert status.look(layout, record) == Sandbox(record.name, State.STOPPED, "/projects/app")
    write(layout, record, State.RUNNING)
    layout.room(record.name).state.write_text("{")
    assert status.look(layout, record).state is State.STOPPED


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.STOPPING])
def test_dead_with_its_supervisor_is_lost(layout: Layout, record: Record, state: State) -> None:
    """After a power cut the file says what was; the locks say what is."""
    write(layout, record, state)
    found = anyio.run(status.status, layout, record)
    assert (found.state, found.pid, found.phase) == (State.LOST, None, None)
    assert found.failure is not None
    assert "sandbox start" in str(found.failure.hint)
    fd = locks.acquire(layout.home(record.name).supervisor_lock)
    assert fd is not None
    assert status.look(layout, record).state is state
    os.close(fd)


def test_stop_that_ends_while_one_looks_is_no_loss(
    layout: Layout, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read, the supervisor cleans up and ends, the locks are asked: it has stopped."""
    write(layout, record, State.STOPPING)

    def ends(*_: object) -> bool:
        layout.room(record.name).state.unlink(missing_ok=True)
        return False

    monkeypatch.setattr(status, "is_alive", ends)
    assert status.look(layout, record).state is State.STOPPED


def test_list(layout: Layout, record: Record) -> None:
    """Stopped ones only when they are wanted."""
    names.allot(layout, "/projects/other")
    write(layout, record, State.RUNNING)

    async def found(*, stopped: bool) -> list[str]:
        return [one.name for one in await status.every(layout, stopped=stopped)]

    assert anyio.run(lambda: found(stopped=False)) == ["sandbox-app"]
    assert anyio.run(lambda: found(stopped=True)) == ["sandbox-app", "sandbox-other"]


def test_refused_start_leaves_nothing(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name, no folder, no supervisor."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(WorkspaceRefused):
        anyio.run(start, layout, Start(str(tmp_path / "none")))
    monkeypatch.setenv("SANDBOX_CONTAINER", "sandbox-outer")
    with pytest.raises(Nested, match="sandbox-outer"):
        anyio.run(start, layout, Start(str(tmp_path)))
    assert not layout.base.exists()
    with pytest.raises(SandboxNotFound):
        names.read(layout, "sandbox-none")


def test_one_of_a_newer_version_does_not_hide_the_others(layout: Layout) -> None:
    """It is listed with what is known of it, and why there is no more."""
    newer = names.allot(layout, "/projects/newer")
    names.allot(layout, "/projects/app")
    room = layout.room(newer.name)
    room.folder.mkdir(parents=True)
    room.state.write_text('{"schema": 99}')

    async def listed() -> list[Sandbox]:
        return await status.every(layout, stopped=True)

    found = {one.name: one for one in anyio.run(listed)}
    assert set(found) == {"sandbox-newer", "sandbox-app"}
    assert "newer version" in found["sandbox-newer"].warnings[0]
