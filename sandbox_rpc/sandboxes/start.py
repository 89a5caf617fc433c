"""Start the sandbox of a folder, join its start, or find it running."""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio
from attrs import field, frozen

from sandbox_rpc.config import sources
from sandbox_rpc.host import files, names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import Nested, SandboxBusy, SandboxNotRunning, SettingInvalid
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.types import Sandbox
from sandbox_rpc.sandboxes import workspace
from sandbox_rpc.sandboxes.status import is_alive
from sandbox_rpc.supervisor import client, spawn
from sandbox_rpc.supervisor.request import StartRequest
from sandbox_rpc.supervisor.wire import PeerGone, RequestCancelled

ATTEMPTS = 40
PAUSE_S = 0.2
"""Together longer than a supervisor takes to say farewell."""
DEATHS = 5
"""How many supervisors may die over one start before it is their fault."""
INSIDE = "SANDBOX_CONTAINER"
"""Set in every guest, so that nothing nests by accident."""


@frozen
class Start:
    """What to start, and how."""

    workspace: str
    """Folder to share."""
    name: str | None = None
    """Name to give it; by default one from the folder's."""
    settings: Mapping[str, object] = field(factory=dict)
    """Settings that go before those of all files, by key."""
    user_settings: Mapping[str, object] = field(factory=dict)
    """The user's settings in the client, by key: they count as config.toml, and go before it."""
    force: bool = False
    """Share even what is refused for good reasons, and nest."""


def refuse_nesting(*, force: bool) -> None:
    """Refuse to make a machine inside a machine.

    Raises:
        Nested: this is the inside of a sandbox, and `force` is not set.
    """
    inside = os.environ.get(INSIDE)
    if inside and not force:
        raise Nested(f"This is already the inside of a sandbox ({inside}).", name=inside)


async def start(
    layout: Layout, wanted: Start, *, report: Report = silent, cancel: anyio.Event | None = None
) -> Sandbox:
    """Return the running sandbox of a folder.

    A folder inside a running sandbox's workspace means that sandbox. Setting `cancel` undoes the
    start, unless others wait for it too.

    Raises:
        SandboxError: it cannot be started; nothing is left behind but logs.
        RequestCancelled: `cancel` was set.
    """
    refuse_nesting(force=wanted.force)
    real = workspace.real_path(wanted.workspace)
    record = workspace.enclosing(layout, real) if wanted.name is None else None
    if record is not None:
        real = record.workspace
    admitted = workspace.admit(layout, real, force=wanted.force or record is not None)
    loaded = sources.load(admitted.path, wanted.settings, user=wanted.user_settings)
    with files.translated(layout.base):
        layout.make()
    record = record or names.allot(layout, admitted.path, wanted.name)
    if not is_alive(layout, record.name):
        names.remember_settings(layout, record.name, wanted.settings, wanted.user_settings)
    request = StartRequest(
        workspace=admitted.path,
        settings=loaded.settings,
        masks=list(admitted.masks),
        warnings=loaded.warnings,
    )
    sandbox = await request_start(layout, record, request, report=report, cancel=cancel)
    refuse_other_network(sandbox, wanted.settings)
    return sandbox


def refuse_other_network(sandbox: Sandbox, asked: Mapping[str, object]) -> None:
    """See that a sandbox that ran already is as closed as this start wants it.

    Other settings of a running sandbox stay as they are without a word; but who asks for a closed
    network must not find himself in an open one.

    Raises:
        SettingInvalid: its network is another one than the one that was asked for.
    """
    network = asked.get("network")
    if network is not None and sandbox.network is not None and sandbox.network != network:
        raise SettingInvalid(
            f"{sandbox.name} runs already, with network = {sandbox.network}, not {network}.",
            hint=f"Stop it first: sandbox stop {sandbox.name}",
            setting="network",
            name=sandbox.name,
        )


async def request_start(
    layout: Layout,
    record: Record,
    request: StartRequest,
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> Sandbox:
    """Have the sandbox's supervisor start it; a supervisor that is just ending is replaced."""
    deaths = 0
    for _ in range(ATTEMPTS):
        if cancel is not None and cancel.is_set() and not deaths:
            raise RequestCancelled
        await spawn.ensure(layout, record.name)
        try:
            answer = await client.ask(
                layout.home(record.name),
                "sandbox/start",
                convert.to_wire(request),
                report=report,
                cancel=cancel,
                sent_before=deaths > 0,
            )
        except SandboxNotRunning:
            await anyio.sleep(PAUSE_S)  # it is just ending
            continue
        except PeerGone:
            deaths += 1
            if deaths == DEATHS:
                break
            await anyio.sleep(PAUSE_S)  # while it dies, its socket may still take connections
            continue
        return convert.from_wire(answer, Sandbox)
    raise SandboxBusy(
        f"The supervisor of {record.name} ends again and again.",
        hint=f"Its log is {layout.home(record.name).supervisor_log}.",
        name=record.name,
    )
