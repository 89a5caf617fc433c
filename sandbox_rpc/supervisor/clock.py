"""The guest's clock: right again after whatever has stopped it.

A guest that was paused, or whose host has slept, goes on with the time at which it stopped; without
a time server, which a closed network has none of, it would stay behind. On a host's clock that is
kept by NTP it drifts as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from sandbox_rpc.host.clock import Jumps
from sandbox_rpc.protocol.errors import GuestFailed
from sandbox_rpc.supervisor.vm import Vm

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
TOLERANCE_S = 1
"""A clock that is not off by more is left alone: a step confuses programs in the guest."""
ANSWER_LIMIT_S = 10.0


async def keep(vm: Vm) -> None:
    """Set the guest's clock after each pause and each jump, and look after it; until cancelled."""
    try:
        with Jumps() as jumps:
            await follow(vm, jumps.wait)
    except OSError as error:
        log.warning("the host's clock cannot be watched: %s", error)
        await follow(vm, anyio.sleep_forever)


async def follow(vm: Vm, jump: Callable[[], Awaitable[None]]) -> None:
    """The same, where `jump` waits for the host's clock to do so."""
    while True:
        vm.resumed = anyio.Event()
        await _wait(vm, jump)
        # What is said to a paused guest would reach it when it is no longer true.
        if not vm.paused and not await adjust(vm):
            return


async def adjust(vm: Vm) -> bool:
    """Set the guest's clock, where it is off; False where its agent is too old for that."""
    try:
        now = f"{time.time():.6f} {TOLERANCE_S}"
        await vm.agent.ask("time", now.encode(), timeout_s=ANSWER_LIMIT_S)
    except GuestFailed as error:
        log.info("the guest's clock is not looked after: %s", error)
        return not error.details.get("refused")
    return True


async def _wait(vm: Vm, jump: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:

        async def jumped() -> None:
            await jump()
            group.cancel_scope.cancel()

        group.start_soon(jumped)
        with anyio.move_on_after(INTERVAL_S):
            await vm.resumed.wait()
        group.cancel_scope.cancel()
