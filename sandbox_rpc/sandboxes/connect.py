"""Join stdin and stdout to a sandbox's SSH port, starting it first (the stub ProxyCommand)."""

from __future__ import annotations

import os
import sys

import anyio
import anyio.abc

from sandbox_rpc.config import sources
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotRunning, SshUnreachable
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.types import State
from sandbox_rpc.sandboxes.start import Start, start
from sandbox_rpc.sandboxes.status import status

CHUNK = 1 << 16


async def connect(layout: Layout, name: str, *, report: Report = silent) -> None:
    """Carry bytes until either side closes.

    Raises:
        SandboxNotRunning: it is stopped, and `ssh.autostart` is off.
        SandboxError: it cannot be started.
    """
    record = names.read(layout, name)
    sandbox = await status(layout, record)
    if sandbox.state is not State.RUNNING:
        user = record.user_settings
        if not sources.load(record.workspace, record.overrides, user=user).settings.ssh_autostart:
            raise SandboxNotRunning(
                f"{name} is not running, and ssh.autostart is off.",
                hint=f"Start it: sandbox start {record.workspace}",
            )
        # As it was started last, not as the files alone say; and it has been shared before, so what
        # spoke against the folder has been overruled before.
        wanted = Start(record.workspace, settings=record.overrides, user_settings=user, force=True)
        sandbox = await start(layout, wanted, report=report)
    if sandbox.ssh is None:
        raise SshUnreachable(f"{name} has no SSH port.")
    async with (
        await anyio.connect_tcp(sandbox.ssh.host, sandbox.ssh.port) as stream,
        anyio.create_task_group() as group,
    ):
        group.start_soon(_upload, stream)
        await _download(stream)
        group.cancel_scope.cancel()


async def _upload(stream: anyio.abc.SocketStream) -> None:
    source = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(source)
        data = os.read(source, CHUNK)
        if not data:
            await stream.send_eof()
            return
        await stream.send(data)


async def _download(stream: anyio.abc.SocketStream) -> None:
    sink = sys.stdout.fileno()
    async for data in stream:
        view = memoryview(data)
        while view:
            view = view[os.write(sink, view) :]
