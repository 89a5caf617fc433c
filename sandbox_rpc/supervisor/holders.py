"""The end of a QEMU of which only its lock is known."""

from __future__ import annotations

import os

import anyio

from sandbox_rpc.host import locks, process
from sandbox_rpc.supervisor.request import Place

LIMIT_S = 10


async def end_holders(place: Place) -> None:
    """Kill whoever holds the machine's lock, such as a QEMU cancelled as it was starting."""
    lock = place.home.vm_lock
    # Again and again, since bubblewrap may have forked while we looked.
    with anyio.move_on_after(LIMIT_S):
        while locks.is_held(lock):
            for pid in locks.holders(lock):
                if (found := process.identify(pid)) is not None and pid != os.getpid():
                    found.kill()
            await anyio.sleep(locks.RETRY_S)
