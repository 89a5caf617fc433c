"""Ports where QEMU's own network stack has to do: a real QEMU, without a machine."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import launch
from sandbox_rpc.protocol.errors import ForwardNotFound, NetworkFailed, PermissionDenied, PortTaken
from sandbox_rpc.protocol.types import Forward, Sandbox, State
from sandbox_rpc.qemu import qmp
from sandbox_rpc.supervisor.ports import Ports
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.usernet import LOOPBACK, PRIVILEGED, UserNet
from tests.unit.network.lab import QEMU, wait_for

SO_ACCEPTCON = 1 << 16
"""Of a unix socket's flags in /proc/net/unix."""


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Path]:
    """The control socket of a QEMU with its own network."""
    path = tmp_path / "qmp.sock"
    # As in its box: also root's QEMU has no capabilities.
    setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*setpriv, QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-no-user-config",
         "-netdev", "user,id=net", "-qmp", f"unix:{path},server=on,wait=off"],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # It exists a moment before anybody listens.
        wait_for(lambda: accepts(path), "its socket")
        yield path
    finally:
        process.kill()
        process.wait()


def accepts(path: Path) -> bool:
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[-1] == str(path) and int(row[3], 16) & SO_ACCEPTCON for row in rows[1:])


def play(path: Path, scene: Callable[[UserNet, Ports, Store], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                control = await qmp.connect(path, group)
                store = Store(Room(path.parent), Sandbox("box", State.RUNNING, "/w"))

                class Vm:
                    net = None
                    qmp = control
                    ended = anyio.Event()

                ports = Ports(store, lambda: Vm)  # type: ignore[arg-type, return-value]
                await scene(UserNet(control), ports, store)
                await ports.adopt(Vm)  # type: ignore[arg-type]
                group.cancel_scope.cancel()

    anyio.run(main)


def free_port() -> int:
    with launch.listen_on_loopback() as one:
        number: int = one.getsockname()[1]
    return number


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((LOOPBACK, port)) == 0


def test_ports_come_and_go(monitor: Path) -> None:
    async def scene(stack: UserNet, ports: Ports, store: Store) -> None:
        assert await stack.forwards() == []
        ssh = await stack.add(22, 0)
        number = free_port()
        forward = await ports.forward(3000, number)
        assert forward == Forward(LOOPBACK, number, 3000)
        assert await ports.forward(3000, 0) == forward
        assert store.sandbox.forwards == [forward], "SSH is not among them"
        assert {one.host_port for one in await stack.forwards()} == {ssh.host_port, number}
        assert listens(number)
        assert await ports.close(number) == forward
        assert not listens(number)
        assert await stack.forwards() == [ssh]
        again = await ports.forward(22, 0)
        assert again.host_port != ssh.host_port

    play(monitor, scene)


def test_a_port_that_only_root_may_have(monitor: Path) -> None:
    async def scene(stack: UserNet, ports: Ports, store: Store) -> None:
        with pytest.raises((PermissionDenied, PortTaken)):
            await ports.forward(80, 80)
        assert (await ports.forward(80, 0)).host_port >= PRIVILEGED

    play(monitor, scene)


def test_what_is_refused(monitor: Path) -> None:
    async def scene(stack: UserNet, ports: Ports, store: Store) -> None:
        with launch.listen_on_loopback() as other:
            taken = other.getsockname()[1]
            with pytest.raises(PortTaken):
                await ports.forward(3000, taken)
            assert (await ports.forward(taken, 0)).host_port not in (0, taken)
        with pytest.raises(ForwardNotFound):
            await ports.close(free_port())

    play(monitor, scene)


def test_a_qemu_without_such_a_network(tmp_path: Path) -> None:
    path = tmp_path / "qmp.sock"
    process = subprocess.Popen(
        [QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-no-user-config",
         "-qmp", f"unix:{path},server=on,wait=off"],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip

    async def scene(stack: UserNet, ports: Ports, store: Store) -> None:
        with pytest.raises(NetworkFailed, match="opens no port"):
            await ports.forward(3000, free_port())
        assert store.sandbox.forwards == []

    try:
        # It exists a moment before anybody listens.
        wait_for(lambda: accepts(path), "its socket")
        play(path, scene)
    finally:
        process.kill()
        process.wait()
