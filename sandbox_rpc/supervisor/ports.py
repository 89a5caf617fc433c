"""Ports of this host that lead into a running guest: opened, closed, and kept over adoptions."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

import anyio

from sandbox_rpc.network.port import check
from sandbox_rpc.protocol.errors import (
    ForwardNotFound,
    NetworkFailed,
    PermissionDenied,
    PortTaken,
    SandboxError,
    SandboxNotRunning,
)
from sandbox_rpc.protocol.types import Forward, State
from sandbox_rpc.supervisor.net import Net
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.usernet import UserNet
from sandbox_rpc.supervisor.vm import Vm

log = logging.getLogger(__name__)

MOST = 60
"""As many listening sockets as the network process can hand over in one message."""


class Ports:
    """The forwards of one machine, one change at a time; `Store` tells everyone of them."""

    def __init__(self, store: Store, vm: Callable[[], Vm | None]) -> None:
        self._store = store
        self._vm = vm
        self._changing = anyio.Lock()

    async def forward(self, guest_port: int, host_port: int) -> Forward:
        """Open a forward, or return the one that is there; host port 0: the guest's, or any.

        Raises:
            SettingInvalid: these are no ports.
            SandboxNotRunning: there is nothing to lead to.
            PortTaken, PermissionDenied: the host's port cannot be had.
            NetworkFailed: something else is in the way.
        """
        check(guest_port, "guestPort")
        check(host_port, "hostPort", least=0)
        async with self._changing:
            stack = self._stack()
            known = self._store.sandbox.forwards
            for one in known:
                if one.guest_port == guest_port and host_port in (0, one.host_port):
                    return one
                if one.host_port == host_port:
                    raise PortTaken(
                        f"Port {host_port} leads to the guest's port {one.guest_port} already.",
                        hint=f"Close it first: sandbox port close {host_port}",
                        hostPort=host_port,
                    )
            if len(known) >= MOST:
                raise NetworkFailed(
                    f"{MOST} ports lead to the guest already.", hint="Close some of them."
                )
            opened = await _open(stack, guest_port, host_port)
            self._store.change(forwards=[*known, opened])
            return opened

    async def close(self, host_port: int) -> Forward:
        """Close a forward and return what it was.

        Raises:
            SettingInvalid: that is no port.
            SandboxNotRunning, ForwardNotFound: there is nothing to close.
            NetworkFailed: it cannot be closed.
        """
        check(host_port, "hostPort")
        async with self._changing:
            stack = self._stack()
            known = self._store.sandbox.forwards
            found = next((one for one in known if one.host_port == host_port), None)
            if found is None:
                name = self._store.sandbox.name
                raise ForwardNotFound(
                    f"Port {host_port} of this host does not lead to {name}.",
                    name=name, hostPort=host_port,
                )  # fmt: skip
            await stack.remove(host_port)
            self._store.change(forwards=[one for one in known if one is not found])
            return found

    async def adopt(self, vm: Vm) -> None:
        """Find those that a dead supervisor has opened, and open again those that died with it."""
        known = self._store.sandbox.forwards
        # QEMU's own list has that of SSH too, so there what was written down counts.
        found = await vm.net.forwards() if vm.net is not None else list(known)
        for lost in [one for one in known if one not in found]:
            try:
                found.append(await _open(_stack_of(vm), lost.guest_port, lost.host_port))
            except SandboxError as error:
                log.warning("a port is closed from now on: %s", error)
        if found != known:
            self._store.change(forwards=found)

    def _stack(self) -> Net | UserNet:
        vm, sandbox = self._vm(), self._store.sandbox
        if vm is None or vm.ended.is_set() or sandbox.state is not State.RUNNING:
            raise SandboxNotRunning(f"{sandbox.name} is {sandbox.state}.", name=sandbox.name)
        return _stack_of(vm)


def _stack_of(vm: Vm) -> Net | UserNet:
    return vm.net if vm.net is not None else UserNet(vm.qmp)


async def _open(stack: Net | UserNet, guest_port: int, host_port: int) -> Forward:
    if not host_port:
        try:
            return await stack.add(guest_port, guest_port)
        except OSError:
            log.info("port %d cannot be had here; any other will do", guest_port)
    try:
        return await stack.add(guest_port, host_port)
    except OSError as error:
        raise _refusal(error, host_port) from None


def _refusal(error: OSError, port: int) -> SandboxError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortTaken(f"Port {port} of this host is in use.", hostPort=port)
        case errno.EACCES | errno.EPERM:
            return PermissionDenied(
                f"This user may not listen on port {port}.",
                hint="Ports below 1024 are the administrator's; take a higher one, such as 8080.",
                hostPort=port,
            )
    return NetworkFailed(f"Port {port} cannot be opened: {error.strerror}.", hostPort=port)
