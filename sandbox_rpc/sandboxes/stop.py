"""Stop a sandbox; what lives only in the guest is gone after it."""

from __future__ import annotations

from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SandboxBusy, SandboxNotRunning
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes.status import is_alive, look
from sandbox_rpc.supervisor import client, spawn
from sandbox_rpc.supervisor.wire import PeerGone

ATTEMPTS = 5


async def stop(
    layout: Layout,
    record: Record,
    *,
    force: bool = False,
    limit_s: float = 0,
    report: Report = silent,
) -> Sandbox:
    """Stop the machine and return the value; stopping a stopped one succeeds.

    The workspace is written back, the guest shuts down in order, and after `limit_s` seconds (0:
    what the setting `stop.timeout` was at the start) it is ended; `force` ends it without asking
    the guest's programs.

    Raises:
        StopTimeout: QEMU does not end, not even when killed.
    """
    for _ in range(ATTEMPTS):
        if not is_alive(layout, record.name) and not layout.room(record.name).folder.exists():
            return look(layout, record)
        await spawn.ensure(layout, record.name)
        try:
            answer = await client.ask(
                layout.home(record.name),
                "sandbox/stop",
                {"force": force, "limitS": limit_s},
                report=report,
            )
        except (PeerGone, SandboxNotRunning):
            continue
        stopped = convert.from_wire(answer, Sandbox)
        return (
            stopped if stopped.workspace else Sandbox(record.name, State.STOPPED, record.workspace)
        )
    raise SandboxBusy(f"The supervisor of {record.name} does not answer.", name=record.name)
