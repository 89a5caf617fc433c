"""The one value: on disk, to all listeners, and what is left of a lost machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Home, Room
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import DiskFull, StateNewer
from sandbox_rpc.protocol.types import Forward, Sandbox, State
from sandbox_rpc.supervisor import state


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "room" / "qemu").mkdir(parents=True)
    return Room(tmp_path / "room")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def test_change_is_written_noted_and_told(room: Room) -> None:
    """File, event log and listeners agree."""
    store = state.Store(room, Sandbox("x", State.STARTING, "/w"))
    told: list[Sandbox] = []
    store.listen("me", told.append)
    store.change(phase="boot")
    store.change(state=State.RUNNING, phase=None)
    store.unlisten("me")
    store.change(warnings=["w"])
    assert [(one.state, one.phase) for one in told] == [
        (State.STARTING, "boot"),
        (State.RUNNING, None),
    ]
    assert 0 < told[0].revision < told[1].revision < store.sandbox.revision
    assert state.load(room) == store.sandbox
    assert room.state.stat().st_mode & 0o777 == 0o600
    events = [json.loads(line) for line in room.events.read_text().splitlines()]
    assert [one["revision"] for one in events] == [
        *(one.revision for one in told),
        store.sandbox.revision,
    ]


def test_full_disk_does_not_stop_a_change(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody could stop the machine that has filled it; the next change writes it again."""
    store = state.Store(room, Sandbox("x", State.RUNNING, "/w"))
    told: list[Sandbox] = []
    store.listen("me", told.append)

    def full(*_: object) -> None:
        raise DiskFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", full)
        store.change(state=State.STOPPING)
    assert told[-1].state is State.STOPPING
    store.change(phase="flush")
    found = state.load(room)
    assert found is not None
    assert found.state is State.STOPPING
    assert found.revision > told[0].revision


def test_no_room_no_file(tmp_path: Path) -> None:
    """A change after the room has gone makes no new one."""
    room = Room(tmp_path / "gone")
    state.Store(room, Sandbox("x", State.STOPPED, "/w")).change(phase="x")
    assert not room.folder.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff", b"[]", b"null", b"{}", b'{"name": 1}', b'{"schema": 1}']
)
def test_damaged_is_absent(room: Room, damage: bytes) -> None:
    """A file that a crash of the host has cut short is no error."""
    room.state.write_bytes(damage)
    assert state.load(room) is None


def test_missing_is_absent(tmp_path: Path) -> None:
    """Also where a file is in the room's place."""
    assert state.load(Room(tmp_path / "none")) is None
    (tmp_path / "file").touch()
    assert state.load(Room(tmp_path / "file")) is None


def test_newer_is_refused(room: Room) -> None:
    """Not guessed at; and fields that this version does not know are no obstacle."""
    value = convert.to_wire(Sandbox("x", State.RUNNING, "/w"))
    room.state.write_text(json.dumps({**value, "schema": 2}))
    with pytest.raises(StateNewer):
        state.load(room)
    room.state.write_text(json.dumps({**value, "colour": "blue"}))
    assert state.load(room) == Sandbox("x", State.RUNNING, "/w")


def test_clear_keeps_logs_but_no_links(room: Room, home: Home, tmp_path: Path) -> None:
    """QEMU writes in its folder; a link there must not make us take a file of the host."""
    (tmp_path / "secret").write_text("secret")
    room.console_log.symlink_to(tmp_path / "secret")
    room.qemu_log.write_text("what QEMU said")
    room.network_log.write_text("what its network said")
    state.clear(room, home, keep_logs=True)
    assert not room.folder.exists()
    assert {one.name for one in home.last.iterdir()} == {"qemu.log", room.network_log.name}
    assert (home.last / "qemu.log").read_text() == "what QEMU said"
    assert (tmp_path / "secret").read_text() == "secret"
    state.clear(room, home, keep_logs=False)  # and nothing there is fine


def test_lost_leaves_only_why(room: Room, home: Home) -> None:
    """After a crash `status` still says what happened."""
    state.clear(room, home, keep_logs=False)
    lost = Sandbox(
        "x", State.RUNNING, "/w", revision=4, pid=12, console_socket="/c",
        forwards=[Forward("127.0.0.1", 3000, 3000)],
    )  # fmt: skip
    state.leave_lost(room, lost)
    found = state.load(room)
    assert found is not None
    assert (found.state, found.pid, found.console_socket) == (State.LOST, None, None)
    assert found.forwards == []
    assert found.revision == 5
    assert [one.name for one in room.folder.iterdir()] == ["sandbox.json"]
