"""The end of a machine: workspace written back, guest shut down, QEMU gone, nothing left."""

from __future__ import annotations

import anyio

from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.supervisor.vm import Vm

FLUSH_LIMIT_S = 30.0


async def stop(vm: Vm, report: Report, *, force: bool, limit_s: float) -> None:
    """End the machine; returns when QEMU's process is gone.

    Graceful: unmount the workspace through the agent, ask the guest to power off, and after
    `limit_s` seconds end QEMU. `force` skips the guest, but not the workspace: what its cache
    holds is the user's work.
    """
    report(Progress("flush", "Writing the workspace back", 10))
    await vm.flush(min(limit_s, FLUSH_LIMIT_S) if not force else 3.0)
    if not force:
        report(Progress("shutdown", "Shutting the guest down", 30))
        await vm.power_down()
        with anyio.move_on_after(limit_s):
            await vm.ended.wait()
    if not vm.ended.is_set():
        report(Progress("quit", "Ending QEMU", 80))
        await vm.quit()
