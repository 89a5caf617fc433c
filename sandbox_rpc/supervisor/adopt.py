"""The network of a machine whose supervisor has died, for the one that takes it over."""

from __future__ import annotations

import logging

import anyio
import anyio.abc

from sandbox_rpc.host import names
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.supervisor import net, reach
from sandbox_rpc.supervisor.finish import publish
from sandbox_rpc.supervisor.net import Net
from sandbox_rpc.supervisor.request import Launch, Place
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.vm import Vm

log = logging.getLogger(__name__)

LIMIT_S = 15
"""How long the other things of a takeover wait for the network."""


async def network(
    place: Place, note: Launch, vm: Vm, store: Store, group: anyio.abc.TaskGroup
) -> None:
    """Take it over; where that fails, it is tried again and again beside everything else."""
    if not note.own_network:
        return
    with anyio.move_on_after(LIMIT_S):
        if await _take(place, note, vm, group):
            return
    group.start_soon(_insist, place, note, vm, store, group)


async def find_port(place: Place, note: Launch, vm: Vm, store: Store) -> None:
    """Publish the SSH port again where another program took it while nobody held it."""
    ssh = store.sandbox.ssh
    if vm.net is not None and (ssh is None or ssh.port != vm.net.port):
        try:
            await publish(place, note, vm, store)
        except (SandboxError, OSError) as error:
            log.warning("the new SSH port cannot be published: %s", error)


async def _take(place: Place, note: Launch, vm: Vm, group: anyio.abc.TaskGroup) -> bool:
    try:
        what = reach.wish(note.request.settings, place.room, note.pins)
        found = await Net.adopt(
            place.room,
            what._replace(dhcp=note.foreign),
            preferred=names.read(place.layout, place.name).last_port,
            guest_port=note.guest_ssh_port,
        )
    except (SandboxError, OSError) as error:
        log.warning("its network cannot be taken over: %s", error)
        return False
    vm.plug(found, group)
    return True


async def _insist(
    place: Place, note: Launch, vm: Vm, store: Store, group: anyio.abc.TaskGroup
) -> None:
    while not vm.ended.is_set():
        await anyio.sleep(net.AGAIN_S)
        if await _take(place, note, vm, group):
            await find_port(place, note, vm, store)
            return
