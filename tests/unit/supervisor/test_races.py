"""Starts, stops and deaths that meet: a real supervisor around a machine that is only played."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sandbox_rpc.config import sources
from sandbox_rpc.host import files, locks, names, process, sockets
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert, frames
from sandbox_rpc.protocol.errors import DiskFull, SandboxBusy, SandboxNotRunning, StateNewer
from sandbox_rpc.protocol.progress import silent
from sandbox_rpc.protocol.types import Forward, Sandbox, Ssh, State
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.supervisor import boot, spawn, state, supervisor
from sandbox_rpc.supervisor.request import Launch, Place, StartRequest, note
from sandbox_rpc.supervisor.serve import Visitors
from sandbox_rpc.supervisor.supervisor import Supervisor
from sandbox_rpc.supervisor.wire import RequestCancelled


class PlayedVm:
    """What a supervisor needs of a machine."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.out_of_room = anyio.Event()
        self.reason: str | None = None
        self.net: Any = None
        self.hub = self
        self.agent = self
        self.process = process.identify(os.getpid())

    async def serve(
        self, path: Path, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()

    async def forward_ssh(self, preferred: int | None, guest_port: int) -> int:
        port: int = self.net.port
        return port

    async def greet(self) -> None:
        pass

    async def wake(self) -> None:
        pass

    async def ask(self, verb: str, payload: bytes = b"", *, timeout_s: float) -> bytes:
        return b""

    async def quit(self) -> None:
        await anyio.sleep(0.05)
        self.ended.set()

    async def flush(self, timeout_s: float) -> None:
        pass

    async def power_down(self) -> None:
        pass


class Play:
    """A supervisor, the machine it starts, and levers."""

    def __init__(self, place: Place, group: anyio.abc.TaskGroup) -> None:
        self.place = place
        self.group = group
        self.supervisor = Supervisor(place, group)
        self.request = StartRequest("/w", sources.load(None, {}).settings)
        self.vm = PlayedVm()
        self.boots = 0
        self.ready = anyio.Event()
        self.outcomes: dict[str, object] = {}

    async def boot(self, *_: Any) -> tuple[Launch, PlayedVm]:
        self.boots += 1
        return Launch(self.request, Accelerator.TCG, 22, "key"), self.vm

    async def finish(
        self, _: Place, __: Launch, ___: Any, store: state.Store, *_____: Any, forgive: bool = True
    ) -> Sandbox:
        await self.ready.wait()
        return store.change(state=State.RUNNING)

    def start(self, who: str) -> None:
        """Ask for the machine as `who`; what comes of it is in `outcomes`."""
        self.group.start_soon(
            self._note, who, lambda: self.supervisor.start(self.request, who, silent)
        )

    def stop(self, who: str, *, force: bool = False) -> None:
        self.group.start_soon(
            self._note, who, lambda: self.supervisor.stop(who, silent, force=force)
        )

    async def _note(self, who: str, work: Callable[[], Awaitable[Sandbox]]) -> None:
        try:
            self.outcomes[who] = (await work()).state
        except (RequestCancelled, SandboxBusy, SandboxNotRunning) as error:
            self.outcomes[who] = type(error)

    async def outcome(self, who: str) -> object:
        while who not in self.outcomes:
            await anyio.sleep(0.01)
        return self.outcomes[who]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Play], Awaitable[None]]], None]:
    """Run a scene; whatever hangs fails."""
    layout = Layout(tmp_path / "cache")
    layout.make()
    place = Place(layout, "sandbox-x")
    place.home.folder.mkdir()
    monkeypatch.setenv("SSH_CONFIG_DIR", str(tmp_path / "none"))

    def play(scene: Callable[[Play], Awaitable[None]]) -> None:
        async def main() -> None:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as group:
                    it = Play(place, group)
                    monkeypatch.setattr(boot, "boot", it.boot)
                    monkeypatch.setattr(supervisor, "finish", it.finish)
                    await scene(it)
                    group.cancel_scope.cancel()

        anyio.run(main)

    return play


Run = Callable[[Callable[[Play], Awaitable[None]]], None]


def test_two_starts_one_boot(run: Run) -> None:
    """And a third, later, finds it running."""

    async def scene(it: Play) -> None:
        it.start("one")
        it.start("two")
        await anyio.wait_all_tasks_blocked()
        it.ready.set()
        assert await it.outcome("one") == await it.outcome("two") == State.RUNNING
        it.start("three")
        assert await it.outcome("three") == State.RUNNING
        assert it.boots == 1

    run(scene)


def test_start_during_an_undoing_is_not_undone_with_it(run: Run) -> None:
    """Who comes while another's Ctrl-C takes effect is sent to the next supervisor."""

    async def scene(it: Play) -> None:
        it.start("one")
        await anyio.wait_all_tasks_blocked()
        it.supervisor.leave("one")
        it.start("two")
        assert await it.outcome("one") is RequestCancelled
        assert await it.outcome("two") is SandboxNotRunning
        assert it.supervisor.done.is_set()
        assert it.vm.ended.is_set()
        assert not it.place.room.folder.exists()
        it.start("three")
        assert await it.outcome("three") is SandboxNotRunning

    run(scene)


def test_stop_during_a_start(run: Run) -> None:
    """It wins, and those who waited for the start learn why."""

    async def scene(it: Play) -> None:
        it.start("one")
        await anyio.wait_all_tasks_blocked()
        it.stop("two")
        assert await it.outcome("two") == State.STOPPED
        assert await it.outcome("one") is SandboxBusy
        assert it.supervisor.done.is_set()

    run(scene)


def test_machine_that_ends_in_the_moment_it_is_ready(run: Run) -> None:
    """Between the last step of a start and its end: it is lost, not running for ever."""

    async def scene(it: Play) -> None:
        it.start("one")
        await anyio.wait_all_tasks_blocked()
        it.ready.set()
        it.vm.ended.set()
        await it.supervisor.done.wait()
        assert it.supervisor.store.sandbox.state is State.LOST
        found = state.load(it.place.room)
        assert found is not None
        assert found.state is State.LOST
        assert found.failure is not None

    run(scene)


@pytest.mark.parametrize("reason", ["guest-shutdown", None])
def test_machine_that_ends_by_itself(run: Run, reason: str | None) -> None:
    """Shut down from inside it is stopped, killed it is lost."""

    async def scene(it: Play) -> None:
        it.start("one")
        it.ready.set()
        await it.outcome("one")
        it.vm.reason = reason
        it.vm.ended.set()
        await it.supervisor.done.wait()
        wanted = State.STOPPED if reason else State.LOST
        assert it.supervisor.store.sandbox.state is wanted

    run(scene)


def test_force_helps_a_stop_that_takes_its_time(run: Run) -> None:
    """A second, forced stop ends the machine for both; a start meanwhile gets the next life."""

    async def scene(it: Play) -> None:
        it.start("one")
        it.ready.set()
        await it.outcome("one")
        it.stop("patient")
        await anyio.wait_all_tasks_blocked()
        it.start("late")
        it.stop("impatient", force=True)
        assert await it.outcome("impatient") == await it.outcome("patient") == State.STOPPED
        assert await it.outcome("late") is SandboxNotRunning

    run(scene)


def test_stop_on_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that cannot be written keeps a machine from being stopped."""

    def full(*_: object) -> None:
        raise DiskFull("full")

    async def scene(it: Play) -> None:
        it.start("one")
        it.ready.set()
        await it.outcome("one")
        monkeypatch.setattr(files, "replace", full)
        it.stop("two", force=True)
        assert await it.outcome("two") == State.STOPPED
        assert it.supervisor.done.is_set()

    run(scene)


def test_cancel_in_one_breath_with_its_request(run: Run) -> None:
    """Both in one packet: the cancel must not be read before there is something to cancel."""

    async def scene(it: Play) -> None:
        visitors = Visitors(it.supervisor)
        path = it.place.home.supervisor_socket
        async with sockets.listen(path) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, visitors.attend)
            async with await sockets.connect(path) as client:
                params = convert.to_wire(it.request)
                request = {"jsonrpc": "2.0", "id": 1, "method": "sandbox/start", "params": params}
                cancel = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}
                strange = {**cancel, "params": {"id": {"not": "hashable"}}}
                await client.send(b"".join(map(frames.encode, (strange, request, cancel))))
                got = b""
                while b'"id":1' not in got:
                    got += await client.receive()
            group.cancel_scope.cancel()
        assert b"-32800" in got
        assert it.boots == 0

    run(scene)


def test_adopted_but_out_of_reach(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nobody can talk to is of no use to anyone: ended, and lost."""
    monkeypatch.setattr(supervisor, "REACH_LIMIT_S", 0.3)

    async def scene(it: Play) -> None:
        it.place.room.qemu.mkdir(parents=True)
        # Its supervisor died before it could note QEMU's process: only the lock tells.
        note(it.place.room, Launch(it.request, Accelerator.TCG, 22, "key"))
        lock = locks.acquire(it.place.home.vm_lock)
        assert lock is not None
        with (
            subprocess.Popen(["sleep", "60"], pass_fds=[lock]) as qemu,  # noqa: ASYNC220 (a fork)
            ExitStack() as stack,
        ):
            os.close(lock)
            for path in (it.place.room.qmp_socket, it.place.room.agent_socket):
                silent_end = stack.enter_context(socket.socket(socket.AF_UNIX))
                silent_end.bind(str(path))
                silent_end.listen()
            await it.supervisor.adopt()
            assert qemu.wait(10) == -signal.SIGKILL
        assert it.supervisor.done.is_set()
        assert it.supervisor.store.sandbox.state is State.LOST
        it.start("late")
        assert await it.outcome("late") is SandboxNotRunning

    run(scene)


def test_adopted_with_a_damaged_state_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value is made anew from the note, and the login proven again; no secret stays."""

    async def scene(it: Play) -> None:
        room = it.place.room
        room.qemu.mkdir(parents=True)
        note(room, Launch(it.request, Accelerator.TCG, 22, "key"))
        room.state.write_text("{ half a fi")
        (room.qemu / "credential.host-key").write_text("secret")
        it.supervisor = Supervisor(it.place, it.group)

        async def attach(*_: object, **more: object) -> PlayedVm:
            return it.vm

        monkeypatch.setattr(supervisor, "attach", attach)
        lock = locks.acquire(it.place.home.vm_lock)
        assert lock is not None
        await it.supervisor.adopt()
        it.ready.set()
        it.start("one")
        assert await it.outcome("one") == State.RUNNING
        os.close(lock)
        assert it.boots == 0
        found = state.load(room)
        assert found is not None
        assert (found.state, found.workspace) == (State.RUNNING, "/w")
        assert found.pid == os.getpid()
        assert room.qemu_pid.read_text() == f"{os.getpid()}\n"
        assert list(room.qemu.iterdir()) == []

    run(scene)


class PlayedNet:
    """A network process that was started anew on another port, since the old one was taken."""

    port = 40001

    async def forwards(self) -> list[Forward]:
        return []


def test_adopted_on_another_port(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network process had died too, and another program has its port: everyone is told."""

    async def scene(it: Play) -> None:
        place, vm = it.place, it.vm
        place.room.qemu.mkdir(parents=True)
        names.write(place.layout, names.Record(place.name, "/w"))
        note(place.room, Launch(it.request, Accelerator.TCG, 22, "key"))
        ssh = Ssh("127.0.0.1", 40000, "dev", place.name, "c", "k", "i", "key")
        state.Store(place.room, Sandbox(place.name, State.RUNNING, "/w")).change(ssh=ssh)
        it.supervisor = Supervisor(place, it.group)
        vm.net = PlayedNet()

        async def attach(*_: object, **more: object) -> PlayedVm:
            return vm

        monkeypatch.setattr(supervisor, "attach", attach)
        lock = locks.acquire(place.home.vm_lock)
        assert lock is not None
        await it.supervisor.adopt()
        os.close(lock)
        found = state.load(place.room)
        assert found is not None
        assert found.ssh is not None
        assert (found.state, found.ssh.port) == (State.RUNNING, 40001)
        assert place.room.ssh_port.read_text() == "40001\n"
        assert "Port 40001" in place.home.ssh_config.read_text()
        assert names.read(place.layout, place.name).last_port == 40001

    run(scene)


def test_newer_state_of_a_dead_machine_is_no_obstacle(run: Run) -> None:
    """Of one that lives it is: then only the newer version may touch it."""

    async def scene(it: Play) -> None:
        it.place.room.folder.mkdir(parents=True)
        it.place.room.state.write_text('{"schema": 99}')
        it.supervisor = Supervisor(it.place, it.group)
        it.start("one")
        it.ready.set()
        assert await it.outcome("one") == State.RUNNING
        it.place.room.state.write_text('{"schema": 99}')
        lock = locks.acquire(it.place.home.vm_lock)
        assert lock is not None
        with pytest.raises(StateNewer):
            Supervisor(it.place, it.group)
        with pytest.raises(StateNewer):
            await spawn.ensure(it.place.layout, it.place.name)
        os.close(lock)

    run(scene)
