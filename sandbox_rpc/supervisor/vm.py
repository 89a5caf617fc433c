"""A live virtual machine: the open ends that only its supervisor holds."""

from __future__ import annotations

import os
from contextlib import suppress

import anyio
import anyio.abc
from attrs import define, field

from sandbox_rpc.console.hub import Hub
from sandbox_rpc.guest import agent as agents
from sandbox_rpc.guest.agent import Agent
from sandbox_rpc.host import process
from sandbox_rpc.host.paths import Room
from sandbox_rpc.host.process import ProcessId
from sandbox_rpc.protocol.errors import GuestFailed, NetworkFailed, QemuFailed
from sandbox_rpc.qemu import qmp
from sandbox_rpc.qemu.qmp import Qmp, QmpError
from sandbox_rpc.supervisor.net import Net
from sandbox_rpc.supervisor.usernet import UserNet

FINE_REASONS = frozenset({"guest-shutdown", "guest-reset", "host-qmp-quit"})
"""Why QEMU may end without the machine being lost."""


@define
class Vm:
    """QEMU's control, the guest's agent, the console."""

    room: Room
    process: ProcessId
    pidfd: int
    qmp: Qmp
    agent: Agent
    hub: Hub
    has_agent: bool = True
    """Whether our agent is in the guest; without it, it is asked by ACPI and SSH."""
    net: Net | None = None
    """The network process; None where QEMU's own stack has to do."""
    ended: anyio.Event = field(factory=anyio.Event)
    """Set when QEMU's process is gone."""
    reason: str | None = None
    """What QEMU said about its end."""
    was_reset: anyio.Event = field(factory=anyio.Event)
    """Set when the guest has reset itself and goes on; QEMU mostly ends of it."""
    out_of_room: anyio.Event = field(factory=anyio.Event)
    """Set when the host's disk is full: QEMU has paused the guest, so that nothing is lost."""

    paused: bool = False
    """Whether QEMU does not run the guest at present."""
    resumed: anyio.Event = field(factory=anyio.Event)
    """Set when it runs it again."""
    _unplugged: anyio.Event | None = None
    """Set when nothing more is done for the network; None where nothing ever was."""

    async def watch(self) -> None:
        """Follow events and the process to its end."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._follow_events)
                await process.wait_ended(self.pidfd)
                # The last event may still be on its way.
                with anyio.move_on_after(0.2):
                    while self.reason is None and self.qmp.is_open:
                        await anyio.sleep(0.01)
                group.cancel_scope.cancel()
        finally:
            os.close(self.pidfd)
        self.ended.set()
        if self.net is not None:
            self.net.close()

    async def wake(self) -> None:
        """Let the guest go on where whoever had paused it is gone, or had no room for its disk."""
        with suppress(QmpError, QemuFailed):
            status = (await self.qmp.execute("query-status"))["status"]
            if status == "io-error":
                self.out_of_room.set()
            elif status == "paused":
                await self.qmp.execute("cont")

    def plug(self, net: Net, group: anyio.abc.TaskGroup) -> None:
        """Take a network, whose process is kept alive as long as QEMU lives."""
        self.net, self._unplugged = net, anyio.Event()
        group.start_soon(self._watch_network, net, self._unplugged)

    async def _watch_network(self, net: Net, unplugged: anyio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(net.watch)
                await self.ended.wait()
                group.cancel_scope.cancel()
        finally:
            # The supervisor may be ending already, with its machine.
            if self.ended.is_set():
                with anyio.CancelScope(shield=True):
                    await net.end()
            unplugged.set()

    async def forward_ssh(self, preferred: int | None, guest_port: int) -> int:
        """Open a loopback port into the guest's SSH; the preferred one if it is free.

        QEMU itself takes the port, so there is no moment in which another program could.

        Raises:
            NetworkFailed: it could not.
        """
        if self.net is not None:
            return self.net.port
        own = UserNet(self.qmp)
        for one in await own.forwards():
            if one.guest_port == guest_port:
                return one.host_port
        try:
            return (await own.add(guest_port, preferred or 0)).host_port
        except (OSError, NetworkFailed):
            return (await own.add(guest_port, 0)).host_port

    async def flush(self, timeout_s: float) -> None:
        """Write the workspace back and unmount it, unless the guest does not answer in time.

        Without the agent the guest's own shutdown does it.
        """
        if not self.has_agent:
            return
        with suppress(GuestFailed):
            await self.agent.ask("unmount", timeout_s=timeout_s)

    async def power_down(self) -> None:
        """Ask the guest to shut down in order."""
        if self.has_agent:
            with suppress(GuestFailed):
                await self.agent.ask("poweroff", timeout_s=5)
                return
        with suppress(QmpError, QemuFailed):
            await self.qmp.execute("system_powerdown")

    async def quit(self) -> None:
        """End QEMU at once: its own way first, then the signal no program refuses."""
        with suppress(QmpError, QemuFailed), anyio.move_on_after(2):
            await self.qmp.execute("quit")
        with anyio.move_on_after(3):
            await self.ended.wait()
        if not self.ended.is_set():
            self.process.kill()
        with anyio.move_on_after(10):
            await self.ended.wait()
            if self._unplugged is not None:
                # A network process that was just being replaced would come up in the room of
                # whatever is started here next.
                await self._unplugged.wait()

    async def _follow_events(self) -> None:
        async for event in self.qmp.events:
            data = event.get("data", {})
            match event.get("event"):
                case "SHUTDOWN":
                    self.reason = str(data.get("reason"))
                case "RESET" if data.get("guest"):
                    self.was_reset.set()
                case "STOP":
                    self.paused = True
                case "RESUME":
                    self.paused = False
                    self.resumed.set()
                case "BLOCK_IO_ERROR" if data.get("nospace"):
                    self.out_of_room.set()


async def attach(
    room: Room, process_id: ProcessId, group: anyio.abc.TaskGroup, *, agent: bool = True
) -> Vm:
    """Open all ends of a machine that runs, just started or left by a dead supervisor.

    Raises:
        QemuFailed: it does not run, or its control socket does not answer.
    """
    if (pidfd := process_id.open()) is None:
        raise QemuFailed("QEMU ended before it could be reached.")
    try:
        control = await qmp.connect(room.qmp_socket, group)
        port = await agents.connect(room.agent_socket, group)
    except OSError as error:
        os.close(pidfd)
        raise QemuFailed(f"QEMU's sockets do not answer: {error}") from error
    except BaseException:
        os.close(pidfd)
        raise
    hub = Hub(room.console_log)
    vm = Vm(room, process_id, pidfd, control, port, hub, has_agent=agent)
    group.start_soon(hub.run, room.serial_socket)
    group.start_soon(vm.watch)
    return vm
