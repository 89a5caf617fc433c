"""Waiting for a guest whose QEMU may end meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio

from sandbox_rpc.console import hub
from sandbox_rpc.protocol.errors import GuestFailed, QemuFailed, SandboxError, SshUnreachable
from sandbox_rpc.supervisor.vm import Vm

T = TypeVar("T")


async def unless_ended(vm: Vm, work: Awaitable[T]) -> T:
    """The result of `work`, unless QEMU ends first.

    Raises:
        QemuFailed: it ended; with the end of the console output.
    """
    result: list[T] = []
    failure: list[SandboxError] = []

    async def do(scope: anyio.CancelScope) -> None:
        try:
            result.append(await work)
        except SandboxError as error:
            failure.append(error)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(do, group.cancel_scope)
        await vm.ended.wait()
        group.cancel_scope.cancel()
    if failure:
        if isinstance(failure[0], GuestFailed | SshUnreachable):
            # A QEMU that dies closes its sockets a moment before it is gone.
            await anyio.sleep(0.05)
            with anyio.move_on_after(0.0 if vm.qmp.is_open else 1.0):
                await vm.ended.wait()
        if not isinstance(failure[0], GuestFailed | SshUnreachable) or not vm.ended.is_set():
            raise failure[0]
    if not result:
        raise QemuFailed(
            f"QEMU ended while the guest was starting ({vm.reason or 'without a word'}).",
            hint="The end of the console output and QEMU's own log say more.",
            console=hub.tail(vm.room.console_log),
        )
    return result[0]
