"""Switching a machine on: its folder, its lock, its process, its network."""

from __future__ import annotations

import os
import shutil

import anyio
import anyio.to_thread
import attrs

from sandbox_rpc.host import files, locks, names
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.protocol.errors import SandboxBusy
from sandbox_rpc.protocol.types import State
from sandbox_rpc.qemu.launch import Describe, launch
from sandbox_rpc.qemu.view import View
from sandbox_rpc.supervisor import reach, scope
from sandbox_rpc.supervisor import request as requests
from sandbox_rpc.supervisor.enclose import hand_over, hand_over_all
from sandbox_rpc.supervisor.ground import Ground
from sandbox_rpc.supervisor.net import Net
from sandbox_rpc.supervisor.request import Launch, Place
from sandbox_rpc.supervisor.state import Store

LOCK_LIMIT_S = 2


def make_folders(ground: Ground) -> None:
    """QEMU's own folder, empty, and what outlives it; the rest of the room it never sees."""
    folder, persist = ground.place.room.qemu, ground.place.home.persist
    shutil.rmtree(folder, ignore_errors=True)
    with files.translated(folder):
        folder.mkdir(mode=0o700)
        persist.mkdir(mode=0o700, exist_ok=True)
        hand_over(folder, ground.box)
        hand_over_all(persist, ground.box)


async def power_on(
    ground: Ground, what: View, describe: Describe, note: Launch, store: Store
) -> Launch:
    """Start QEMU; returns the note, which now says which process it is.

    Raises:
        SandboxBusy: another machine of this name holds the lock.
        QemuFailed: it ended at once.
    """
    place, settings = ground.place, ground.settings
    room = place.room
    # Not before: an image or a template is made by processes of ours, which need more.
    limits = await anyio.to_thread.run_sync(
        scope.limit, place.name, settings.memory_mib, settings.cpus
    )
    store.change(
        workspace_security=ground.security,
        box=[*ground.box.layers, limits, *reach.absent(reach.support())],
    )
    requests.note(room, note)
    lock_fd = await take_lock(place)
    try:
        process = await launch(
            qemu=ground.qemu, box=ground.box, what=what, describe=describe, room=room,
            lock_fd=lock_fd,
        )  # fmt: skip
    finally:
        os.close(lock_fd)
    note = attrs.evolve(note, process=process)
    requests.note(room, note)
    files.replace(room.qemu_pid, f"{process.pid}\n")
    store.change(pid=process.pid, state=State.STARTING)
    return note


async def take_lock(place: Place) -> int:
    """The lock that QEMU is to hold.

    Raises:
        SandboxBusy: another machine of this name holds it.
    """
    with anyio.move_on_after(LOCK_LIMIT_S):
        # Somebody who only asks whether it is held, holds it for that instant.
        while (lock_fd := locks.acquire(place.home.vm_lock)) is None:
            await anyio.sleep(locks.RETRY_S)
        return lock_fd
    raise SandboxBusy(f"A machine of {place.name} is still running.", name=place.name)


async def open_network(
    ground: Ground, wish: Wish, guest_port: int, *, plugged: anyio.Event | None = None
) -> Net | None:
    """Start the machine's network process; None where this host can have none.

    `plugged` is set as soon as QEMU has a peer; the process may then still be starting.

    Raises:
        NetworkFailed: it did not come up.
    """
    if not ground.own_network:
        return None
    place = ground.place
    return await Net.start(
        place.room, wish,
        preferred=names.read(place.layout, place.name).last_port,
        guest_port=guest_port, plugged=plugged,
    )  # fmt: skip
