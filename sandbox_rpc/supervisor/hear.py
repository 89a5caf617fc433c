"""Waiting for a guest's first word, past the one panic that QEMU's emulation may cause.

Before 8.1, with more than one processor, QEMU can run code that was changed while it translated it.
Linux changes its own while it boots, and then panics of a breakpoint that is not there any more,
once in some hundred boots. (QEMU's commit deba78709a, "Always lock pages before translation", mends
it; github.com/multipath-tcp/mptcp_net-next/issues/471 has the story.) Such a guest is booted once
more: nothing of it has begun that could be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from sandbox_rpc.protocol.errors import QemuFailed
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.qemu.qmp import QmpError
from sandbox_rpc.supervisor.ended import unless_ended
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.vm import Vm

log = logging.getLogger(__name__)

MENDED = (8, 1)
"""QEMU's version."""
FIRMWARE_S = 1.0
"""SeaBIOS resets the machine once more, to find itself as it was; a kernel is not there so soon."""


async def first_word(
    vm: Vm,
    accelerator: Accelerator,
    cpus: int,
    say: Callable[[str], None],
    *,
    word: Callable[[], Awaitable[object]] | None = None,
    forgive: bool = True,
) -> None:
    """Wait until the kernel is up and runs user programs: for our agent, or for `word`.

    `forgive`: unless somebody else began this start, who may have forgiven a reset already.

    Raises:
        QemuFailed: QEMU ended first, or cannot be told what a reset means from here on.
        SandboxError: what `word` raises.
    """
    word = word or vm.agent.heard.wait
    if cpus == 1 or not await _may_panic(vm, accelerator):
        await unless_ended(vm, word())
        return
    if forgive:
        await _at_reset(vm, "reset")
        await unless_ended(vm, _past_one_reset(vm, say, word))
    # From here on a reset is the guest's own wish, or the end of work that must not go unnoticed.
    await _at_reset(vm, "shutdown")
    if not forgive:
        await unless_ended(vm, word())


async def _past_one_reset(
    vm: Vm, say: Callable[[str], None], word: Callable[[], Awaitable[object]]
) -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_boot_again, vm, say)
            await word()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as caught:
        raise unwrapped(caught) from None


async def _boot_again(vm: Vm, say: Callable[[str], None]) -> None:
    await vm.was_reset.wait()
    log.warning("the guest was reset before it was up, which may be QEMU's fault")
    say("The guest was reset, as after a panic that may be QEMU's fault; booting it again")
    await anyio.sleep(FIRMWARE_S)
    await _at_reset(vm, "shutdown")


async def _may_panic(vm: Vm, accelerator: Accelerator) -> bool:
    if accelerator is not Accelerator.TCG:
        return False
    with suppress(QmpError, QemuFailed):
        version = (await vm.qmp.execute("query-version"))["qemu"]
        return (version["major"], version["minor"]) < MENDED
    return False


async def _at_reset(vm: Vm, action: str) -> None:
    """What QEMU does when the guest resets itself; the command line has `shutdown`."""
    try:
        await vm.qmp.execute("set-action", reboot=action)
    except QmpError as error:
        raise QemuFailed(f"QEMU does not take `{action}` for a reset: {error}.") from None
