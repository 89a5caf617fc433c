"""When the guest's clock is set: after a pause, after a jump, and now and then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from sandbox_rpc.protocol.errors import GuestFailed
from sandbox_rpc.supervisor import clock


class Vm:
    """What the keeper needs of a machine; its agent writes down what it was asked."""

    def __init__(self, answer: str | None = None, *, refuses: bool = False) -> None:
        self.paused = False
        self.resumed = anyio.Event()
        self.agent = self
        self.asked: list[tuple[float, int]] = []
        self.told = anyio.Event()
        self._answer = answer
        self._refuses = refuses

    async def ask(self, verb: str, payload: bytes, *, timeout_s: float) -> bytes:
        assert verb == "time"
        now, tolerance = payload.decode().split()
        self.asked.append((float(now), int(tolerance)))
        self.told.set()
        if self._answer is not None:
            raise GuestFailed(self._answer, refused=self._refuses)
        return b""


def play(vm: Vm, scene: Callable[[anyio.Event], Awaitable[None]], *, ends: bool = False) -> None:
    """Run `scene` beside the keeper; setting the event it gets is a jump of the host's clock."""

    async def main() -> None:
        jumped = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:

                async def keep() -> None:
                    await clock.follow(vm, jumped.wait)  # type: ignore[arg-type]
                    assert ends
                    group.cancel_scope.cancel()

                group.start_soon(keep)
                await anyio.sleep(0.01)
                await scene(jumped)
                if not ends:
                    group.cancel_scope.cancel()

    anyio.run(main)


def test_after_a_pause_it_gets_the_time_of_now() -> None:
    vm = Vm()

    async def scene(jumped: anyio.Event) -> None:
        vm.resumed.set()
        await vm.told.wait()
        ((now, tolerance),) = vm.asked
        assert abs(now - time.time()) < 5
        assert tolerance == 1

    play(vm, scene)


def test_after_a_jump_of_the_hosts_clock() -> None:
    vm = Vm()

    async def scene(jumped: anyio.Event) -> None:
        jumped.set()
        await vm.told.wait()

    play(vm, scene)


def test_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "INTERVAL_S", 0.01)
    vm = Vm()

    async def scene(jumped: anyio.Event) -> None:
        while len(vm.asked) < 3:
            await anyio.sleep(0.01)

    play(vm, scene)


def test_a_paused_guest_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hear it when it goes on, and when it is wrong."""
    monkeypatch.setattr(clock, "INTERVAL_S", 0.01)
    vm = Vm()
    vm.paused = True

    async def scene(jumped: anyio.Event) -> None:
        await anyio.sleep(0.1)
        assert vm.asked == []
        vm.paused = False
        vm.resumed.set()
        await vm.told.wait()

    play(vm, scene)


def test_a_silent_agent_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "INTERVAL_S", 0.01)
    vm = Vm("The guest's agent did not answer `time` within 10 s.")

    async def scene(jumped: anyio.Event) -> None:
        while len(vm.asked) < 2:
            await anyio.sleep(0.01)

    play(vm, scene)


def test_an_agent_that_does_not_know_how_is_left_alone() -> None:
    vm = Vm("The guest's agent refused `time`: not a time", refuses=True)

    async def scene(jumped: anyio.Event) -> None:
        vm.resumed.set()

    play(vm, scene, ends=True)
    assert len(vm.asked) == 1
