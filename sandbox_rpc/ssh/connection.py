"""One authenticated SSH connection and the commands on it; the only user of paramiko.

paramiko reads in a thread of its own and tells nobody what has come. So every message for a
channel, and the end of the connection, rings a bell that the event loop hears; whatever may block
is done by a few worker threads. Nothing is read from a channel before somebody wants it, and then
SSH's own window stops the command that writes.

The guest is not trusted: it is held to the window, and nothing it says goes to the log.

Importing this costs a third of a second; it is imported on use.
"""

from __future__ import annotations

import binascii
import functools
import logging
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
from paramiko import common

from sandbox_rpc.protocol.errors import ExecFailed, SshUnreachable
from sandbox_rpc.protocol.streams import Stream, Terminal
from sandbox_rpc.ssh.config import LOOPBACK, USER, Endpoint

T = TypeVar("T")

STEP_LIMIT_S = 60
"""For any one step of a login; an emulated guest may be slow, and more so under load."""
WINDOW = 256 << 10
"""Bytes of output that may lie here unread, for each command."""
CHUNK = 64 << 10
THREADS = 16
REPLY_LIMIT_S = 10
CLOSE_LIMIT_S = 2
FAILURES = (OSError, EOFError, paramiko.SSHException)

logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class Full(Exception):
    """The guest's sshd takes no further command on this connection."""

    def __init__(self, running: int) -> None:
        super().__init__()
        self.running = running
        """How many it has taken."""


class Broken(Exception):
    """The connection ended; nothing of what was asked for has begun."""


class Session:
    """A command that runs; made by `Connection.open`."""

    def __init__(self, connection: Connection, channel: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._changed = anyio.Event()
        self._verdicts: deque[list[bool]] = deque()
        self.status: int | None = None
        """Its exit status, when it has ended with one."""
        self.signal: str | None = None
        """The signal that ended it, as sshd names it, when one has."""

    @property
    def closed(self) -> bool:
        """Whether it has ended and nothing will come but what is here already."""
        return bool(self._channel.closed)

    async def receive(self) -> list[tuple[Stream, bytes]]:
        """The next output; an empty list after the last.

        While nobody calls this, the command is stopped as soon as a quarter of a megabyte waits.
        """
        while True:
            # Both looked at first, so that what comes meanwhile is not missed.
            changed, closed = self._changed, self.closed
            if pieces := await self._connection.work(self._take):
                return pieces
            if closed:
                return []
            await changed.wait()

    async def send(self, data: bytes) -> bool:
        """Write to its standard input, as fast as it reads; False: it reads no more."""
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
        with suppress(*FAILURES):
            await self._connection.work(self._channel.shutdown_write)

    async def kill(self, signal: str) -> bool:
        """Send a signal that SSH has a name for to its process group; whether sshd could."""
        message = self._request("signal", reply=True)
        message.add_string(signal)
        verdict: list[bool] = []
        self._verdicts.append(verdict)
        with suppress(*FAILURES), anyio.move_on_after(REPLY_LIMIT_S):
            await self._connection.send(message)
            while True:
                changed = self._changed
                if verdict or self.closed:
                    break
                await changed.wait()
        return verdict == [True]

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal."""
        message = self._request("window-change", reply=False)
        for number in (columns, rows, 0, 0):
            message.add_int(number)
        with suppress(*FAILURES):
            await self._connection.send(message)

    async def aclose(self) -> None:
        """Let go of it; what runs on with a terminal is hung up on, else its pipes close."""
        with anyio.CancelScope(shield=True):
            with suppress(*FAILURES), anyio.move_on_after(CLOSE_LIMIT_S):
                await self._connection.work(self._channel.close, abandon=True)
        self._connection.forget(self._channel.get_id())

    def wake(self) -> None:
        """Something has changed: whoever waits is to look."""
        self._changed.set()
        self._changed = anyio.Event()

    def peek(self, kind: int, message: Any) -> bool:
        """Take from a message what paramiko leaves, in its thread; whether that was all of it."""
        if kind == common.MSG_CHANNEL_REQUEST:
            copy = paramiko.Message(message.asbytes())
            copy.get_int()
            name = copy.get_text()
            copy.get_boolean()
            if name == "exit-status":
                self.status = copy.get_int()
            elif name == "exit-signal":
                self.signal = copy.get_text()
        elif kind in (common.MSG_CHANNEL_SUCCESS, common.MSG_CHANNEL_FAILURE) and self._verdicts:
            # To paramiko a failure is the end of the channel.
            self._verdicts.popleft().append(kind == common.MSG_CHANNEL_SUCCESS)
            return True
        return False

    def _take(self) -> list[tuple[Stream, bytes]]:
        channel, pieces = self._channel, []
        if channel.recv_stderr_ready():
            pieces.append((Stream.STDERR, channel.recv_stderr(CHUNK)))
        if channel.recv_ready():
            pieces.append((Stream.STDOUT, channel.recv(CHUNK)))
        return pieces

    def _give(self, data: bytes) -> int | None:
        try:
            return int(self._channel.send(data)) or None
        except TimeoutError:
            return 0  # its window is full
        except FAILURES:
            return None

    def _request(self, what: str, *, reply: bool) -> Any:
        message = paramiko.Message()
        message.add_byte(common.cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string(what)
        message.add_boolean(reply)
        return message


class Connection:
    """A login; made by `connect`."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._sessions: dict[int, Session] = {}
        self._changes: deque[int | None] = deque()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._transport: Any = None

    @property
    def is_open(self) -> bool:
        """Whether commands can be run on it."""
        return self._transport is not None and self._transport.is_active()

    async def login(self, endpoint: Endpoint, key: Path) -> None:
        """Connect, check who answers, prove who we are.

        Raises:
            SshUnreachable: one of these failed.
        """
        try:
            await self.work(self._login, endpoint, key, abandon=True)
        except FAILURES as error:
            said = str(error) or type(error).__name__
            raise SshUnreachable(f"No SSH login into the guest: {said}.") from error

    async def listen(self) -> None:
        """Wake sessions as messages come, until the connection ends."""
        try:
            while True:
                await anyio.wait_readable(self._bell)
                with suppress(BlockingIOError):
                    self._bell.recv(4096)
                while self._changes:
                    number = self._changes.popleft()
                    if number is None:
                        return
                    if session := self._sessions.get(number):
                        session.wake()
        finally:
            for session in self._sessions.values():
                session.wake()
            self._bell.close()
            self._button.close()

    async def open(self, command: bytes, terminal: Terminal | None) -> Session:
        """Run a command line of the guest user's shell.

        Raises:
            Full: there are too many on this connection.
            Broken: the connection has ended; nothing was run.
            ExecFailed: it ended, or the guest refused, and what has been run nobody knows.
        """
        channel = await self.work(self._open)
        session = self._sessions[channel.get_id()] = Session(self, channel)
        try:
            await self.work(self._start, channel, command, terminal)
        except FAILURES as error:
            await session.aclose()
            raise ExecFailed(f"The guest did not run the command: {error}") from error
        except BaseException:
            await session.aclose()
            raise
        return session

    async def aclose(self) -> None:
        """Log out."""
        if self._transport is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S):
                await self.work(self._transport.close, abandon=True)

    async def send(self, message: Any) -> None:
        """Send a message that nobody waits for an answer to."""
        await self.work(self._transport._send_user_message, message)

    async def work(self, function: Callable[..., T], *args: Any, abandon: bool = False) -> T:
        """Do what may block in a thread."""
        return await anyio.to_thread.run_sync(
            functools.partial(function, *args), abandon_on_cancel=abandon, limiter=self._limiter
        )

    def forget(self, number: int) -> None:
        """A session is closed."""
        self._sessions.pop(number, None)

    def hear(self, kind: int, handler: Callable[..., None], channel: Any, message: Any) -> None:
        """Take a message for a channel, in paramiko's thread."""
        number = channel.get_id()
        session = self._sessions.get(number)
        if session is None or not session.peek(kind, message):
            handler(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > 2 * WINDOW:
            raise paramiko.SSHException("the guest sends more than it may")
        self.ring(number)

    def ring(self, number: int | None) -> None:
        """Let the event loop look at a channel; None: at the end."""
        self._changes.append(number)
        with suppress(OSError):
            self._button.send(b"!")

    def _login(self, endpoint: Endpoint, key: Path) -> None:
        kind, encoded = endpoint.host_key.split()[:2]
        raw = socket.create_connection((LOOPBACK, endpoint.port), STEP_LIMIT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = _Transport(raw, self)
        try:
            transport.banner_timeout = transport.handshake_timeout = STEP_LIMIT_S
            transport.auth_timeout = transport.channel_timeout = STEP_LIMIT_S
            transport.get_security_options().key_types = (kind,)
            transport.start_client(timeout=STEP_LIMIT_S)
            found = transport.get_remote_server_key()
            if (found.get_name(), found.asbytes()) != (kind, binascii.a2b_base64(encoded)):
                raise paramiko.SSHException("another host key than the pinned one")
            transport.auth_publickey(USER, paramiko.Ed25519Key.from_private_key_file(str(key)))
        except BaseException:
            transport.close()
            raise
        self._transport = transport

    def _open(self) -> Any:
        try:
            return self._transport.open_session(window_size=WINDOW, timeout=STEP_LIMIT_S)
        except FAILURES:
            # paramiko may have given the reason to another thread; whether it lives is certain.
            if not self._transport.is_active():
                raise Broken from None
            # Counted here: the answers came in order, and those waiting for theirs are not active.
            raise Full(sum(one.active for one in self._transport._channels.values())) from None

    def _start(self, channel: Any, command: bytes, terminal: Terminal | None) -> None:
        if terminal is not None:
            channel.get_pty(terminal.term, terminal.columns, terminal.rows)
        channel.exec_command(command)
        channel.settimeout(0.0)


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """paramiko's own, but it tells what comes."""

    def __init__(self, raw: socket.socket, owner: Connection) -> None:
        super().__init__(raw, default_window_size=WINDOW)
        self._owner = owner
        table: dict[int, Any] = paramiko.Transport._channel_handler_table
        self._channel_handler_table = {
            kind: functools.partial(owner.hear, kind, handler) for kind, handler in table.items()
        }

    def run(self) -> None:
        """Read until the connection ends."""
        try:
            super().run()
        finally:
            self._owner.ring(None)


async def connect(endpoint: Endpoint, key: Path, group: anyio.abc.TaskGroup) -> Connection:
    """Log in to the guest; what listens on the connection runs in `group`.

    Raises:
        SshUnreachable: nobody answers there, or another than the pinned host key, or not to us.
    """
    connection = Connection()
    await connection.login(endpoint, key)
    group.start_soon(connection.listen)
    return connection
