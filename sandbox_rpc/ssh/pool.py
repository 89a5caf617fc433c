"""The SSH connections to one guest: one, unless its sshd wants fewer commands on each.

The first command pays for a login, the others for a channel. A connection that broke is replaced at
the next command, one that nobody has used for a while is closed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread
from attrs import define

from sandbox_rpc.protocol.errors import SandboxError, SshUnreachable, ToolMissing
from sandbox_rpc.protocol.streams import Terminal
from sandbox_rpc.ssh.config import Endpoint

if TYPE_CHECKING:
    from sandbox_rpc.ssh.connection import Connection, Session

log = logging.getLogger(__name__)

IDLE_LIMIT_S = 600
ATTEMPTS = 20
"""How often a command looks for a connection: others may take the room, or it may break."""


@define(eq=False)
class Line:
    """A connection in the pool."""

    connection: Connection
    users: int = 0
    """Commands on it, and those about to be."""
    used_at: float = 0.0
    """When the last one ended."""


class Pool:
    """Hands out sessions on connections that it opens and closes as needed."""

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        key: Path,
        group: anyio.abc.TaskGroup,
        *,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._group = group
        self._idle_limit_s = idle_limit_s
        self._lines: list[Line] = []
        self._room: int | None = None
        self._login: Login | None = None
        self._reaping = False
        self.logins = 0
        """How many connections have been opened so far."""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._lines)

    async def ready(self) -> None:
        """Wait for a connection; after this, `run` hardly waits for anything but the guest's shell.

        Raises:
            SshUnreachable: no login succeeded.
        """
        await self._line()

    async def run(self, command: bytes, terminal: Terminal | None = None) -> tuple[Line, Session]:
        """Run a command line; give both back to `release` when it has ended.

        Raises:
            SshUnreachable: no login succeeded.
            ExecFailed: the guest refused, or the connection ended before it answered.
        """
        for _ in range(ATTEMPTS):
            line = await self._line()
            from sandbox_rpc.ssh.connection import Broken, Full

            # Before anything is awaited, so that its room is taken.
            line.users += 1
            try:
                session = await line.connection.open(command, terminal)
            except Full as full:
                self._leave(line)
                if not full.running:
                    raise SshUnreachable("The guest's sshd refuses to run commands.") from None
                self._room = min(full.running, self._room or full.running)
            except Broken:
                self._leave(line)
                self._drop(line)
            except BaseException:
                self._leave(line)
                raise
            else:
                return line, session
        raise SshUnreachable("The guest's SSH connections break as soon as they are made.")

    async def release(self, line: Line, session: Session) -> None:
        """Give a session back."""
        with anyio.CancelScope(shield=True):
            await session.aclose()
        self._leave(line)

    async def aclose(self) -> None:
        """Close everything."""
        lines, self._lines = self._lines, []
        for line in lines:
            await line.connection.aclose()

    async def _line(self) -> Line:
        while True:
            for line in list(self._lines):
                if not line.connection.is_open:
                    self._drop(line)
                elif self._room is None or line.users < self._room:
                    return line
            if self._login is None:
                # In a task of its own: who waits for it may give up, the next one still wants it.
                self._login = Login(anyio.Event())
                self._group.start_soon(self._log_in, self._login)
            login = self._login
            await login.done.wait()
            if (error := login.error) is not None:
                raise type(error)(error.message, hint=error.hint, **error.details)

    async def _log_in(self, login: Login) -> None:
        try:
            connect = await anyio.to_thread.run_sync(_import)
            connection = await connect(self._endpoint(), self._key, self._group)
            self._lines.append(Line(connection, used_at=anyio.current_time()))
            self.logins += 1
            log.info("SSH login %d into the guest", self.logins)
            if not self._reaping:
                self._reaping = True
                self._group.start_soon(self._reap)
        except SandboxError as error:
            login.error = error
        except Exception as error:
            log.exception("an SSH login failed")
            login.error = SshUnreachable(f"No SSH login into the guest: {error}.")
        finally:
            self._login = None
            login.done.set()

    async def _reap(self) -> None:
        while self._lines:
            await anyio.sleep(self._idle_limit_s / 4)
            limit = anyio.current_time() - self._idle_limit_s
            for line in list(self._lines):
                if not line.users and (line.used_at <= limit or not line.connection.is_open):
                    self._lines.remove(line)
                    await line.connection.aclose()
        self._reaping = False

    def _leave(self, line: Line) -> None:
        line.users -= 1
        line.used_at = anyio.current_time()

    def _drop(self, line: Line) -> None:
        if line in self._lines:
            log.info("an SSH connection to the guest has ended")
            self._lines.remove(line)
            self._group.start_soon(line.connection.aclose)


@define(eq=False)
class Login:
    """A login under way, for all who wait for it."""

    done: anyio.Event
    error: SandboxError | None = None


def _import() -> Callable[..., Awaitable[Connection]]:
    try:
        from sandbox_rpc.ssh.connection import connect
    except ImportError as error:
        # An editor's extension carries what is pure Python, and offers to install the rest.
        raise ToolMissing(
            f"Commands in the guest need a Python package that is not installed: {error.name}.",
            hint=f"Install it for {sys.executable}: `pip install paramiko`; in the editor the "
            "command Install Packages for the Service does that. Then stop and start the sandbox.",
            tool="python-packages",
        ) from None
    return connect
