"""How a sandbox is, as its files and locks tell; a machine without supervisor gets one."""

from __future__ import annotations

import attrs

from sandbox_rpc.host import locks, names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotFound, StateNewer
from sandbox_rpc.protocol.types import Failure, Sandbox, State
from sandbox_rpc.sandboxes import workspace
from sandbox_rpc.sandboxes.find import by_folder
from sandbox_rpc.supervisor import spawn, state


def is_alive(layout: Layout, name: str) -> bool:
    """Whether a machine runs or a supervisor is at work; locks tell, not pids."""
    home = layout.home(name)
    return locks.is_held(home.vm_lock) or locks.is_held(home.supervisor_lock)


async def status(layout: Layout, record: Record) -> Sandbox:
    """The sandbox's present value.

    Raises:
        StateNewer: a newer version wrote its state.
        SandboxBusy: the machine lives, and no supervisor can be started for it.
    """
    home = layout.home(record.name)
    if locks.is_held(home.vm_lock) and not locks.is_held(home.supervisor_lock):
        await spawn.ensure(layout, record.name)
    return look(layout, record)


def look(layout: Layout, record: Record) -> Sandbox:
    """The same without touching anything."""
    known = state.load(layout.room(record.name))
    if known is None:
        return Sandbox(record.name, State.STOPPED, record.workspace)
    lives = known.state not in (State.STOPPED, State.LOST)
    if lives and not is_alive(layout, record.name):
        if state.load(layout.room(record.name)) != known:
            # It ended in order while we looked.
            return look(layout, record)
        return attrs.evolve(
            known,
            state=State.LOST,
            phase=None,
            ssh=None,
            forwards=[],
            pid=None,
            failure=Failure(
                "qemuFailed",
                "The machine ended together with its supervisor.",
                "The host was restarted, or both were killed; `sandbox start` begins anew.",
            ),
        )
    return known


async def of_folder(layout: Layout, folder: str) -> Sandbox:
    """The sandbox of a folder; one that never had any is a stopped one.

    Raises:
        WorkspaceRefused: there is no such folder.
    """
    try:
        record = by_folder(layout, folder).record
    except SandboxNotFound:
        real = workspace.real_path(folder)
        return Sandbox(names.from_path(real), State.STOPPED, real)
    return await status(layout, record)


async def every(layout: Layout, *, stopped: bool) -> list[Sandbox]:
    """All sandboxes that are not stopped; with `stopped`, all that are remembered."""
    found = []
    for record in names.every(layout):
        try:
            found.append(await status(layout, record))
        except StateNewer as error:
            # One that a newer version runs must not hide all others.
            state_ = State.RUNNING if is_alive(layout, record.name) else State.STOPPED
            found.append(Sandbox(record.name, state_, record.workspace, warnings=[error.message]))
    return [one for one in found if stopped or one.state is not State.STOPPED]
