"""One authenticated SSH connection and the commands on it; the only user of paramiko.

paramiko works in threads of its own and has no way to say what has happened but to be asked. So
every message for a channel, and the end of the connection, writes to one eventfd, which the event
loop waits for; whatever may block is done by a few worker threads. Nothing is read from a channel
before somebody wants it, and then SSH's own window stops the command that writes.

Importing this costs a third of a second; it is imported on use.
"""

from __future__ import annotations

import base64
import functools
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import paramiko  # type: ignore[import-untyped]
from attrs import define, field
from paramiko import common

from sandbox_rpc.protocol.errors import SshUnreachable
from sandbox_rpc.protocol.types import Stream, Terminal
from sandbox_rpc.ssh.config import LOOPBACK, USER, Endpoint

T = TypeVar("T")

STEP_LIMIT_S = 60
"""For any one step of a login; an emulated guest may be slow, and more so under load."""
WINDOW = 256 << 10
"""Bytes of output that may lie here unread, for each command."""
CHUNK = 64 << 10
THREADS = 16
REPLY_LIMIT_S = 10
QUIT_LIMIT_S = 2

OF_OURS = {
    common.MSG_CHANNEL_SUCCESS,
    common.MSG_CHANNEL_FAILURE,
    common.MSG_CHANNEL_REQUEST,
}
"""Messages of which paramiko does not make all that is in them."""

SIGNALS = frozenset(
    "ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2".split()
)  # fmt: skip
"""Those that SSH has names for."""


class Full(Exception):
    """The guest's sshd takes no further session on this connection."""


class Broken(Exception):
    """The connection ended; nothing of what was asked has begun."""


class Lost(Exception):
    """The connection ended; what was asked may have begun."""


class Session:
    """A command that runs; made by `Connection.open`."""

    def __init__(self, connection: Connection, channel: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._changed = anyio.Event()
        self._verdicts: deque[tuple[anyio.Event, list[bool]]] = deque()
        self.status: int | None = None
        """Its exit status, when it has ended with one."""
        self.signal: str | None = None
        """The signal that ended it, without SIG, when one has."""

    @property
    def exited(self) -> bool:
        """Whether it has ended; its output may be longer, where others hold it open."""
        return self.status is not None or self.signal is not None

    @property
    def closed(self) -> bool:
        """Whether nothing more will come than what is here already."""
        return bool(self._channel.closed)

    async def receive(self) -> tuple[Stream, bytes] | None:
        """The next output; None after the last.

        Who does not call this stops the command as soon as a quarter of a megabyte waits.
        """
        while True:
            changed = self._changed
            # Asked for first: what came before the end is here by then.
            closed = self.closed
            stream, data = await self._connection.work(self._take)
            if data:
                return stream, data
            if closed:
                return None
            await changed.wait()

    async def send(self, data: bytes) -> bool:
        """Write to its standard input as fast as it reads; False: it reads no more."""
        view = memoryview(data)
        while view:
            changed = self._changed
            count = await self._connection.work(self._give, bytes(view[:CHUNK]))
            if count is None:
                return False
            if count == 0:
                await changed.wait()
            view = view[count:]
        return True

    async def send_eof(self) -> None:
        """End its standard input."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            await self._connection.work(self._channel.shutdown_write)

    async def kill(self, signal: str) -> bool:
        """Send a signal that SSH has a name for to its process group; whether it was delivered."""
        message = self._message("signal", reply=True)
        message.add_string(signal)
        answered, verdict = anyio.Event(), list[bool]()
        self._verdicts.append((answered, verdict))
        await self._send(message)
        with anyio.move_on_after(REPLY_LIMIT_S):
            while not answered.is_set() and not self.closed:
                await self._change()
        return bool(verdict and verdict[0])

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal."""
        message = self._message("window-change", reply=False)
        for number in (columns, rows, 0, 0):
            message.add_int(number)
        await self._send(message)

    async def aclose(self) -> None:
        """Give it up; a command with a terminal is hung up on, others see closed pipes."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(QUIT_LIMIT_S):
            with suppress(OSError, EOFError, paramiko.SSHException):
                await self._connection.work(self._channel.close, abandon=True)
        self._connection.forget(self, self._channel)

    def tidings(self) -> None:
        """Wake whoever waits for a change of this session."""
        self._changed.set()
        self._changed = anyio.Event()

    def take(self, kind: int, message: Any) -> bool:
        """Handle what paramiko does not, in its thread; whether that was all."""
        if kind != common.MSG_CHANNEL_REQUEST:
            if not self._verdicts:
                return False
            answered, verdict = self._verdicts.popleft()
            verdict.append(kind == common.MSG_CHANNEL_SUCCESS)
            # Nobody waits on the event itself, which only its own loop may wake.
            answered.set()
            return True
        name = message.get_text()
        message.get_boolean()
        if name == "exit-status":
            self.status = message.get_int()
        elif name == "exit-signal":
            self.signal = message.get_text()
        message.rewind()
        message.get_int()
        return False

    async def _change(self) -> None:
        await self._changed.wait()

    def _take(self) -> tuple[Stream, bytes]:
        channel = self._channel
        if channel.recv_stderr_ready():
            return Stream.STDERR, channel.recv_stderr(CHUNK)
        if channel.recv_ready():
            return Stream.STDOUT, channel.recv(CHUNK)
        return Stream.STDOUT, b""

    def _give(self, data: bytes) -> int | None:
        try:
            return int(self._channel.send(data)) or None
        except TimeoutError:
            return 0
        except (OSError, EOFError, paramiko.SSHException):
            return None

    def _message(self, what: str, *, reply: bool) -> Any:
        message = paramiko.Message()
        message.add_byte(common.cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string(what)
        message.add_boolean(reply)
        return message

    async def _send(self, message: Any) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            await self._connection.work(self._channel.transport._send_user_message, message)
