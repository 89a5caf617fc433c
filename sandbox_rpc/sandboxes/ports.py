"""Forward ports of this host into a running sandbox, and close them again."""

from __future__ import annotations

from contextlib import suppress

from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.network.port import check
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ForwardNotFound, SandboxBusy, SandboxNotRunning
from sandbox_rpc.protocol.types import (
    Forward,
    PortCloseParams,
    PortForwardParams,
    Sandbox,
    State,
)
from sandbox_rpc.sandboxes.status import status
from sandbox_rpc.supervisor import client
from sandbox_rpc.supervisor.wire import PeerGone

ATTEMPTS = 5
"""A supervisor that dies meanwhile is replaced, and asked again."""


async def forward(layout: Layout, record: Record, guest_port: int, host_port: int = 0) -> Forward:
    """Let a port of this host's loopback lead to one of the guest's; 0: its number, or any.

    Raises:
        SettingInvalid: these are no ports.
        SandboxNotRunning: there is nothing to lead to.
        PortTaken, PermissionDenied: the host's port cannot be had.
        NetworkFailed: something else is in the way.
    """
    check(guest_port, "guestPort")
    check(host_port, "hostPort", least=0)
    params = convert.to_wire(PortForwardParams(guest_port, host_port=host_port))
    for _ in range(ATTEMPTS):
        await running(layout, record)
        with suppress(PeerGone):
            answer = await client.ask(layout.home(record.name), "port/forward", params)
            return convert.from_wire(answer, Forward)
    raise _restless(layout, record)


async def close(layout: Layout, record: Record, host_port: int) -> Forward:
    """End a forward and return what it was; connections that are open stay.

    Raises:
        SettingInvalid: that is no port.
        SandboxNotRunning, ForwardNotFound: there is nothing to close.
        NetworkFailed: it cannot be closed.
    """
    check(host_port, "hostPort")
    params = convert.to_wire(PortCloseParams(host_port))
    seen: Forward | None = None
    for _ in range(ATTEMPTS):
        sandbox = await running(layout, record)
        try:
            answer = await client.ask(layout.home(record.name), "port/close", params)
            return convert.from_wire(answer, Forward)
        except ForwardNotFound:
            if seen is None:
                raise
            return seen  # the supervisor that died had closed it
        except PeerGone:
            listed = (one for one in sandbox.forwards if one.host_port == host_port)
            seen = seen or next(listed, None)
    raise _restless(layout, record)


async def running(layout: Layout, record: Record) -> Sandbox:
    """The sandbox, which runs and has its supervisor.

    Raises:
        SandboxNotRunning: it does not.
    """
    sandbox = await status(layout, record)
    if sandbox.state is not State.RUNNING:
        raise SandboxNotRunning(
            f"{record.name} is {sandbox.state}.",
            hint=f"Start it: sandbox start {record.workspace}", name=record.name,
        )  # fmt: skip
    return sandbox


def _restless(layout: Layout, record: Record) -> SandboxBusy:
    return SandboxBusy(
        f"The supervisor of {record.name} ends again and again.",
        hint=f"Its log is {layout.home(record.name).supervisor_log}.",
        name=record.name,
    )
