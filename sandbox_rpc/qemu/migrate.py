"""The state of a machine, without its memory, out of QEMU and into another one.

QEMU's migration, by a pipe whose end it gets over its control socket (`getfd`): never `exec:`,
which its own seccomp filter kills it for; and not a file, which newer versions want named.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import anyio

from sandbox_rpc.protocol.errors import TemplateInvalid
from sandbox_rpc.qemu.qmp import Qmp

MAX_STATE = 64 << 20
"""Bytes; devices and firmware take less than one MiB."""
PIPE_SIZE = 1 << 20
PAUSE_S = 0.002
NAME = "state"


async def save(qmp: Qmp, *, limit_s: float = 60) -> bytes:
    """Stop the machine for good and return its state; memory in a shared file stays there.

    Raises:
        TemplateInvalid: QEMU could not, or not in time.
        QmpError, QemuFailed: it refused, or ended.
    """
    with anyio.move_on_after(limit_s):
        await qmp.execute("stop")
        await _leave_memory(qmp)
        read, write = _pipe()
        try:
            try:
                await qmp.execute("getfd", descriptor=write, fdname=NAME)
            finally:
                os.close(write)
            await qmp.execute("migrate", uri=f"fd:{NAME}")
            state = await _read(read)
        finally:
            os.close(read)
        await _completed(qmp)
        return state
    raise TemplateInvalid(f"QEMU did not save the machine within {limit_s:g} s.")


async def load(qmp: Qmp, state: bytes) -> None:
    """Give a machine that waits for it its state; it is paused then, as it was when it was saved.

    Raises:
        TemplateInvalid: the state is not one of this machine.
        QmpError, QemuFailed: QEMU refused, or ended, which newer versions do over a wrong state.
    """
    await _leave_memory(qmp)
    read, write = _pipe()
    try:
        try:
            await qmp.execute("getfd", descriptor=read, fdname=NAME)
        finally:
            os.close(read)
        async with anyio.create_task_group() as group:
            group.start_soon(_write, write, state)
            await qmp.execute("migrate-incoming", uri=f"fd:{NAME}")
    finally:
        os.close(write)
    await _completed(qmp)


async def _leave_memory(qmp: Qmp) -> None:
    wish = {"capability": "x-ignore-shared", "state": True}
    await qmp.execute("migrate-set-capabilities", capabilities=[wish])


async def _completed(qmp: Qmp) -> None:
    while True:
        found = await qmp.execute("query-migrate")
        match found.get("status"):
            case "completed":
                return
            case "failed" | "cancelled":
                why = found.get("error-desc") or "QEMU does not say why"
                raise TemplateInvalid(f"The machine's state could not be moved: {why}.")
        await anyio.sleep(PAUSE_S)


def _pipe() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with suppress(OSError):  # beyond what a user may have in pipes
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return read, write


async def _read(fd: int) -> bytes:
    state = bytearray()
    while len(state) <= MAX_STATE:
        await anyio.wait_readable(fd)
        with suppress(BlockingIOError):
            if not (part := os.read(fd, PIPE_SIZE)):
                return bytes(state)
            state += part
    raise TemplateInvalid("The machine's state has no end.")


async def _write(fd: int, state: bytes) -> None:
    view = memoryview(state)
    try:
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await anyio.wait_writable(fd)
    except BrokenPipeError:
        pass  # QEMU has given up; what it answers says so
