"""A network that cannot be taken over at once is taken over later."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sandbox_rpc.config.values import Settings
from sandbox_rpc.host.names import Record, write
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import NetworkFailed
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.supervisor import adopt, net
from sandbox_rpc.supervisor.request import Launch, Place, StartRequest
from sandbox_rpc.supervisor.state import Store


class Machine:
    """What is plugged into it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.plugged = anyio.Event()
        self.net: Any = None

    def plug(self, found: Any, _: object) -> None:
        self.net = found
        self.plugged.set()


def test_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has a supervisor meanwhile, and its port is published once there is one."""
    layout = Layout(tmp_path / "cache")
    layout.make()
    place = Place(layout, "sandbox-x")
    place.home.folder.mkdir()
    write(layout, Record(place.name, "/w"))
    note = Launch(StartRequest("/w", Settings()), Accelerator.TCG, 22, "key", own_network=True)
    store = Store(place.room, Sandbox(place.name, State.RUNNING, "/w"))
    published: list[int] = []
    failures = [NetworkFailed("docker restarts"), OSError(24, "Too many open files")]

    async def take(*_: object, **__: object) -> Any:
        if failures:
            raise failures.pop()
        return SimpleNamespace(port=40001)

    async def publish(_: object, __: object, vm: Any, ___: object) -> None:
        published.append(vm.net.port)

    monkeypatch.setattr(net, "AGAIN_S", 0.01)
    monkeypatch.setattr(net.Net, "adopt", take)
    monkeypatch.setattr(adopt, "publish", publish)

    async def main() -> None:
        vm: Any = Machine()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                await adopt.network(place, note, vm, store, group)
                assert vm.net is None
                await vm.plugged.wait()

    anyio.run(main)
    assert published == [40001]
