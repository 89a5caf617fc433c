"""QEMU as a process: its sockets made before it, its lock handed over, its pid known for sure."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
from attrs import frozen

from sandbox_rpc.host import files, process, sockets
from sandbox_rpc.host.paths import Room
from sandbox_rpc.host.process import ProcessId
from sandbox_rpc.protocol.errors import QemuFailed
from sandbox_rpc.qemu import command, view
from sandbox_rpc.qemu import filter as setuid_filter
from sandbox_rpc.qemu.box import Box, Variant
from sandbox_rpc.qemu.capabilities import Qemu
from sandbox_rpc.qemu.machine import Machine
from sandbox_rpc.qemu.view import View
from sandbox_rpc.qemu.wrap import child_pid, wrap


@frozen
class Ends:
    """Descriptors of the listening sockets that QEMU inherits."""

    qmp: int
    agent: int
    serial: int
    network: int


Describe = Callable[[Mapping[str, str], Ends], Machine]
"""The machine, given where QEMU sees the files (host path → its path) and its sockets."""


async def launch(
    *,
    qemu: Qemu,
    box: Box,
    what: View,
    describe: Describe,
    room: Room,
    lock_fd: int,
    tied: bool = False,
) -> ProcessId:
    """Start QEMU in its box, a session of its own; it holds the lock, we keep nothing of it.

    No pipe leads to us: stdin is empty, the output goes to `Room.qemu_log`. When we die, it lives,
    unless it is `tied` to us.

    Raises:
        QemuFailed: it ended at once; with what it said.
        DiskFull, PermissionDenied: its files cannot be made.
    """
    with ExitStack() as stack:
        ends = Ends(
            *(
                _listen(path, stack)
                for path in (
                    room.qmp_socket,
                    room.agent_socket,
                    room.serial_socket,
                    room.network_socket,
                )
            )
        )
        opened = stack.enter_context(view.descriptors(what)) if box.variant is Variant.PLAIN else {}
        argv = command.argv(qemu.path, describe(box.places(what, opened), ends))
        filter_fd = setuid_filter.descriptor() if box.filtered and box.has_monitor else None
        if filter_fd is not None:
            stack.callback(os.close, filter_fd)
        with files.translated(room.qemu_log):
            log = os.open(
                room.qemu_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
        stack.callback(os.close, log)
        read, write = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, read)
        try:
            inherited = [lock_fd, ends.qmp, ends.agent, ends.serial, ends.network, *opened.values()]
            if box.has_monitor:
                # For bubblewrap: it reads the one and writes QEMU's pid to the other.
                inherited += [fd for fd in (filter_fd, write) if fd is not None]
            _raise_file_limit()
            child = subprocess.Popen(  # noqa: ASYNC220 (a fork; nothing is waited for)
                wrap(
                    box,
                    what,
                    argv,
                    info_fd=write if box.has_monitor else None,
                    filter_fd=filter_fd,
                    tied=tied,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=room.qemu,
                start_new_session=True,
                pass_fds=inherited,
                umask=0o077,
            )
        finally:
            os.close(write)
        pid = child.pid
        if box.has_monitor:
            pid = await _qemus_pid(read, child, room)
        if (identity := process.identify(pid)) is None:
            raise _failed(child, room)
        return identity


async def _qemus_pid(read: int, monitor: subprocess.Popen[bytes], room: Room) -> int:
    try:
        # Not to be cancelled: a QEMU whose pid nobody knows would be ended by nobody.
        with anyio.CancelScope(shield=True):
            pid = await anyio.to_thread.run_sync(child_pid, read)
    except (ValueError, KeyError):
        raise _failed(monitor, room) from None
    return pid


def _failed(child: subprocess.Popen[bytes], room: Room) -> QemuFailed:
    try:
        status: object = child.wait(2)
    except subprocess.TimeoutExpired:
        status = "none yet"
    return QemuFailed(
        f"QEMU could not be started (exit status {status}): {last_words(room.qemu_log)}",
        hint="`sandbox doctor` checks what it needs.",
    )


def last_words(log: Path, lines: int = 3) -> str:
    """The end of QEMU's own log."""
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        text = ""
    return " / ".join(text.splitlines()[-lines:]) or "it said nothing"


def _listen(path: Path, stack: ExitStack) -> int:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    stack.callback(raw.close)
    path.unlink(missing_ok=True)
    with files.translated(path), sockets.short(path) as name:
        raw.bind(name)
    path.chmod(0o600)
    raw.listen(1)
    return raw.fileno()


def _raise_file_limit() -> None:
    # 9p holds a descriptor for every file the guest has open.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
