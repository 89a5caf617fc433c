"""A host's disk that is full: QEMU pauses the guest, and it goes on when there is room again."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import anyio

from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.qemu.qmp import QmpError
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.vm import Vm

OUT_OF_ROOM = "The host's disk is full: the guest is paused and goes on when there is room."
ROOM_TO_GO_ON = 256 << 20
INTERVAL_S = 2


async def wait_for_room(vm: Vm, store: Store, where: Path) -> None:
    """Let the guest go on whenever QEMU has paused it for want of room at `where`."""
    while True:
        await vm.out_of_room.wait()
        vm.out_of_room = anyio.Event()
        store.change(warnings=[*store.sandbox.warnings, OUT_OF_ROOM])
        # No file system announces that it has room again.
        while shutil.disk_usage(where).free < ROOM_TO_GO_ON:
            await anyio.sleep(INTERVAL_S)
        with suppress(QmpError, SandboxError):
            await vm.qmp.execute("cont")
        store.change(warnings=[one for one in store.sandbox.warnings if one != OUT_OF_ROOM])
