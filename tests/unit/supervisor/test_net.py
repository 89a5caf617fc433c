"""The owner of the network process: real processes, a guest without a machine, deaths of all sorts.

The guest is a network namespace whose cable ends in a QEMU that runs nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import launch
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.protocol.errors import (
    ForwardNotFound,
    NetworkFailed,
    PermissionDenied,
    PortTaken,
    SandboxNotRunning,
    SettingInvalid,
)
from sandbox_rpc.protocol.types import Forward, Sandbox, State
from sandbox_rpc.supervisor import ports as port_module
from sandbox_rpc.supervisor.net import LOOPBACK, Net
from sandbox_rpc.supervisor.ports import Ports
from sandbox_rpc.supervisor.state import Store
from tests.unit.network.lab import Lab, World, alive, lab, wait_for

LIMIT_S = 120
OFFLINE = Wish(Mode.OFFLINE)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The namespaces, for all tests of this file."""
    made = World()
    yield made
    made.stop()


@pytest.fixture
def guest(world: World, tmp_path: Path) -> Iterator[Lab]:
    """A guest that serves `ssh` on 22 and `web` on 3000; its folder is the room."""
    with lab(world, tmp_path) as made:
        yield made


class Scene:
    """A machine's network as its supervisor has it."""

    def __init__(self, guest: Lab, net: Net) -> None:
        self.guest = guest
        self.net = net
        self.ended = anyio.Event()
        self.store = Store(Room(guest.folder), Sandbox("box", State.RUNNING, "/w"))
        self.ports = Ports(self.store, lambda: self)  # type: ignore[arg-type, return-value]

    @property
    def pid(self) -> int:
        """The network process of the moment."""
        running = launch.attach(self.guest.control_socket)
        running.control.close()
        return running.pid

    def kill(self) -> int:
        """kill -9 of the network process."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), "its death")
        return pid

    async def die(self) -> None:
        """What the kernel does for a dead supervisor, and what its successor begins with."""
        self.net.close()
        self.net = await Net.adopt(Room(self.guest.folder), OFFLINE, preferred=None, guest_port=22)


async def word(port: int) -> str:
    """What greets behind a port of this host, or `refused`."""

    def ask() -> str:
        with socket.socket() as one:
            one.settimeout(60)
            try:
                one.connect((LOOPBACK, port))
                return one.recv(100).decode().strip()
            except ConnectionRefusedError:
                return "refused"

    return await anyio.to_thread.run_sync(ask)


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture
def play(guest: Lab) -> Play:
    """Run a scene on a guest that is up; whatever hangs fails."""

    def run(scene: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            with anyio.fail_after(LIMIT_S):
                net = await Net.start(Room(guest.folder), OFFLINE, preferred=None, guest_port=22)
                it = Scene(guest, net)
                guest.go_up()
                try:
                    await scene(it)
                finally:
                    pid = it.pid
                    it.net.close()
                    guest.qemu.kill()
                    await anyio.to_thread.run_sync(wait_for, lambda: not alive(pid), "its end")

        anyio.run(main)

    return run


def test_ports_lead_into_the_guest(play: Play) -> None:
    """Their numbers are the guest's where these are free, and the same one is asked for once."""

    async def scene(it: Scene) -> None:
        assert await word(it.net.port) == "ssh"
        first = await it.ports.forward(3000, 0)
        assert await it.ports.forward(3000, 0) == first
        assert await it.ports.forward(3000, first.host_port) == first
        with launch.listen_on_loopback() as free:
            number = free.getsockname()[1]
        second = await it.ports.forward(3000, number)
        assert second == Forward(LOOPBACK, number, 3000)
        assert it.store.sandbox.forwards == [first, second] == await it.net.forwards()
        for port in (first.host_port, second.host_port):
            assert await word(port) == "web"
        assert await it.ports.close(number) == second
        assert await word(number) == "refused"
        assert await word(first.host_port) == "web"
        assert it.store.sandbox.forwards == [first]
        assert await it.ports.forward(22, number) == Forward(LOOPBACK, number, 22)
        assert await word(number) == "ssh"

    play(scene)


def test_they_outlive_the_process(play: Play) -> None:
    async def scene(it: Scene) -> None:
        forward = await it.ports.forward(3000, 0)
        async with anyio.create_task_group() as group:
            group.start_soon(it.net.watch)
            for _ in range(2):
                before = it.kill()
                # In between nobody is refused: the listening sockets are the supervisor's too.
                assert await word(forward.host_port) == "web"
                assert await word(it.net.port) == "ssh"
                assert it.pid != before
            group.cancel_scope.cancel()
        assert await it.net.forwards() == [forward]

    play(scene)


def test_they_outlive_the_supervisor(play: Play) -> None:
    async def scene(it: Scene) -> None:
        ssh, pid = it.net.port, it.pid
        forward = await it.ports.forward(3000, 0)
        await it.die()
        assert (it.net.port, it.pid) == (ssh, pid)
        assert await it.net.forwards() == [forward]
        it.store.change(forwards=[])  # it died before it came to note it
        await it.ports.adopt(it)  # type: ignore[arg-type]
        assert it.store.sandbox.forwards == [forward]
        it.kill()
        async with anyio.create_task_group() as group:
            group.start_soon(it.net.watch)
            assert await word(forward.host_port) == "web"
            assert await word(ssh) == "ssh"
            await it.ports.close(forward.host_port)
            assert await word(forward.host_port) == "refused"
            group.cancel_scope.cancel()

    play(scene)


@pytest.mark.parametrize("adopted", [False, True])
def test_qemu_does_not_see_it_die(play: Play, adopted: bool) -> None:
    """It would take the next connection at once."""

    async def scene(it: Scene) -> None:
        if adopted:
            await it.die()
        it.kill()
        with launch.connect_to_qemu(it.guest.qemu_socket):
            await anyio.sleep(1)
            assert it.guest.queued() == 1
        async with anyio.create_task_group() as group:
            group.start_soon(it.net.watch)
            assert await word(it.net.port) == "ssh"
            group.cancel_scope.cancel()

    play(scene)


def test_they_are_opened_again_when_both_have_died(play: Play) -> None:
    """One whose port was taken meanwhile is given up, not its neighbour."""

    async def scene(it: Scene) -> None:
        with launch.listen_on_loopback() as one, launch.listen_on_loopback() as two:
            numbers = [one.getsockname()[1], two.getsockname()[1]]
        for number in numbers:
            await it.ports.forward(3000, number)
        it.kill()
        it.net.close()
        with launch.listen_on_loopback(numbers[0]):
            await it.die()
            assert await it.net.forwards() == []
            await it.ports.adopt(it)  # type: ignore[arg-type]
        left = [Forward(LOOPBACK, numbers[1], 3000)]
        assert it.store.sandbox.forwards == left == await it.net.forwards()
        assert await word(numbers[0]) == "refused"
        assert await word(numbers[1]) == "web"

    play(scene)


def test_one_that_is_asked_for_while_the_process_is_dead(play: Play) -> None:
    """The next process is started with it; one that is closed meanwhile it never gets."""

    async def scene(it: Scene) -> None:
        closed = await it.ports.forward(22, 0)
        it.kill()
        forward = await it.ports.forward(3000, 0)
        await it.ports.close(closed.host_port)
        async with anyio.create_task_group() as group:
            group.start_soon(it.net.watch)
            assert await word(forward.host_port) == "web"
            assert await word(closed.host_port) == "refused"
            group.cancel_scope.cancel()

    play(scene)


def test_a_process_that_does_not_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is not left open, and what it says too late is no answer to the next question."""

    async def scene(it: Scene) -> None:
        pid = it.pid
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(launch, "CALL_LIMIT_S", 0.2)
            with pytest.raises(NetworkFailed, match="does not answer"):
                await it.ports.forward(3000, 0)
        assert it.store.sandbox.forwards == []
        os.kill(pid, signal.SIGCONT)
        forward = await it.ports.forward(22, 0)
        assert await word(forward.host_port) == "ssh"
        assert await it.ports.close(forward.host_port) == forward

    play(scene)


def test_what_is_refused(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(it: Scene) -> None:
        with socket.socket() as other:
            other.bind(("0.0.0.0", 0))
            other.listen()
            taken = other.getsockname()[1]
            with pytest.raises(PortTaken) as caught:
                await it.ports.forward(3000, taken)
            assert caught.value.details == {"hostPort": taken}
            instead = await it.ports.forward(taken, 0)
            assert instead.host_port not in (0, taken)
        with pytest.raises(PortTaken):
            await it.ports.forward(3000, it.net.port)
        with pytest.raises(PortTaken, match=f"the guest's port {taken}") as caught:
            await it.ports.forward(3000, instead.host_port)
        assert caught.value.hint == f"Close it first: sandbox port close {instead.host_port}"
        with pytest.raises(ForwardNotFound):
            await it.ports.close(it.net.port)
        for wrong in (0, -1, 65536):
            with pytest.raises(SettingInvalid):
                await it.ports.forward(wrong, 0)
            with pytest.raises(SettingInvalid):
                await it.ports.close(wrong)

        def forbidden(port: int) -> socket.socket:
            if 0 < port < 1024:
                raise PermissionError(13, "Permission denied")
            return original(port)

        original = launch.listen_on_loopback
        with monkeypatch.context() as patch:
            patch.setattr(launch, "listen_on_loopback", forbidden)
            with pytest.raises(PermissionDenied) as denied:
                await it.ports.forward(80, 80)
            assert "8080" in (denied.value.hint or "")
            assert (await it.ports.forward(80, 0)).host_port >= 1024
        monkeypatch.setattr(port_module, "MOST", len(it.store.sandbox.forwards))
        with pytest.raises(NetworkFailed, match="already"):
            await it.ports.forward(81, 0)
        it.store.change(state=State.STOPPING)
        for work in (it.ports.forward(81, 0), it.ports.close(instead.host_port)):
            with pytest.raises(SandboxNotRunning):
                await work

    play(scene)


def test_many_at_once(play: Play) -> None:
    """As many as there may be, from clients that do not wait; an adopter gets all."""

    async def scene(it: Scene) -> None:
        async def ask(guest_port: int) -> None:
            await it.ports.forward(guest_port, 0)

        async with anyio.create_task_group() as group:
            for number in range(port_module.MOST):
                group.start_soon(ask, 40000 + number % (port_module.MOST // 2))
                group.start_soon(ask, 40000 + number)
        known = it.store.sandbox.forwards
        assert sorted(one.guest_port for one in known) == [
            40000 + number for number in range(port_module.MOST)
        ]
        assert len({one.host_port for one in known}) == port_module.MOST
        await it.die()
        assert sorted(await it.net.forwards(), key=str) == sorted(known, key=str)

    play(scene)


def test_a_port_that_is_taken_is_left_alone(guest: Lab) -> None:
    """The preferred port of SSH, on which somebody else listens."""

    async def main() -> None:
        with launch.listen_on_loopback() as other:
            taken = other.getsockname()[1]
            net = await Net.start(Room(guest.folder), OFFLINE, preferred=taken, guest_port=22)
            guest.go_up()
            assert net.port != taken
            assert await word(net.port) == "ssh"
            net.close()
        guest.qemu.kill()
        await anyio.to_thread.run_sync(_gone, guest.control_socket)

    anyio.run(main)


def _gone(path: Path) -> None:
    def is_gone() -> bool:
        with suppress(NetworkFailed):
            launch.attach(path).control.close()
            return False
        return True

    wait_for(is_gone, "the network process's end")


def test_nothing_to_connect_to(tmp_path: Path) -> None:
    """It says so, and leaves no port open."""

    async def main() -> int:
        with launch.listen_on_loopback() as free:
            port: int = free.getsockname()[1]
        with pytest.raises(NetworkFailed, match="cannot be reached"):
            await Net.start(Room(tmp_path), OFFLINE, preferred=port, guest_port=22)
        return port

    port = anyio.run(main)
    limit = time.monotonic() + 30
    while True:
        try:
            launch.listen_on_loopback(port).close()
        except OSError:
            assert time.monotonic() < limit
        else:
            break
