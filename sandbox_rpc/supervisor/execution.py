"""One command that runs in the guest for a client, from its request to its last byte."""

from __future__ import annotations

import base64
import logging
import math
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ExecFailed, SandboxError
from sandbox_rpc.protocol.streams import ExecOutput, ExecParams, ExecResult, Stream
from sandbox_rpc.ssh import run
from sandbox_rpc.ssh.pool import Pool
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.wire import Params, RequestCancelled

if TYPE_CHECKING:
    from sandbox_rpc.ssh.connection import Session

log = logging.getLogger(__name__)

Tell = Callable[[str, Params], Awaitable[None]]

MERCY_S = 2
"""From TERM to KILL, when a request is cancelled."""
KILLED_LIMIT_S = 1
BEGIN_LIMIT_S = 30
LAST_LIMIT_S = 5
"""For what is left to come from a command that has been killed."""
HELPER_LIMIT_S = 20
ENOUGH = 1 << 20
"""Bytes of input that may wait before the client is told to."""
TOO_MUCH = 64 << 20
"""Bytes of input that may wait at all."""
BY_SSH = frozenset(
    {"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1",
     "USR2"}
)  # fmt: skip
"""Signals that SSH has names for."""
END_OF_INPUT = b"\x04"
"""sshd cannot end the input of a terminal; what a person would type can."""
UNNAMED = "UNKNOWN"


class Execution:
    """A command, its input, its output and its end.

    Nothing is read from the guest before the client has taken what came last, so a client that
    stops reading stops its own command and nothing else.
    """

    def __init__(self, params: ExecParams, pool: Pool, tell: Tell, gone: anyio.Event) -> None:
        self._params = params
        self._pool = pool
        self._tell = tell
        self._gone = gone
        self._remote = run.remote(
            params.argv,
            folder=params.cwd,
            environment=params.env,
            empty_input=not params.stdin and params.tty is None,
        )
        self._prelude = run.Prelude(self._remote.nonce)
        self._feed, self._input = anyio.create_memory_object_stream[bytes | None](math.inf)
        self._command, self._orders = anyio.create_memory_object_stream[str | tuple[int, int]](
            math.inf
        )
        self._waiting = 0
        self._taken = anyio.Event()
        self._begun = anyio.Event()
        self._ended = anyio.Event()
        self._leaving = anyio.Event()
        self._failure: SandboxError | None = None
        self._status: int | None = None
        self._signal_name: str | None = None
        if not params.stdin:
            self._feed.send_nowait(None)

    async def run(self) -> ExecResult:
        """Run it to its end.

        Raises:
            ExecFailed: it did not begin, or how it ended is not known.
            SshUnreachable: no login into the guest succeeded.
            RequestCancelled: it was cancelled, and is no more.
        """
        since = anyio.current_time()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._notice_loss)
                await self._run()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as error:
            raise unwrapped(error) from None
        finally:
            self._ended.set()
            self._taken.set()
        return self._result(round((anyio.current_time() - since) * 1000))

    def leave(self) -> None:
        """The client has cancelled it."""
        self._leaving.set()

    def feed(self, data: bytes, *, eof: bool) -> None:
        """Give it input, which waits here until it is read."""
        if self._ended.is_set() or not self._params.stdin:
            return
        self._waiting += len(data)
        if self._waiting > TOO_MUCH:
            self._failure = ExecFailed(
                "The command was ended: it does not read its input, and too much is waiting.",
                hint="Send the next piece when the last one is taken.",
            )
            self._leaving.set()
            return
        self._feed.send_nowait(data)
        if eof:
            self._feed.send_nowait(None)

    async def room(self) -> None:
        """Wait until more input is welcome."""
        while self._waiting > ENOUGH and not self._ended.is_set():
            await self._taken.wait()

    def order(self, order: str | tuple[int, int]) -> None:
        """Send it a signal, by name without SIG, or tell it the columns and rows of its terminal.

        Raises:
            SettingInvalid: not the name of a signal.
        """
        self._command.send_nowait(run.signal_name(order) if isinstance(order, str) else order)

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            # A login may take long; who has given up need not wait for it.
            group.start_soon(self._cancel_when_leaving, group.cancel_scope)
            await self._pool.ready()
            group.cancel_scope.cancel()
        if self._leaving.is_set():
            return
        line, session = await self._pool.run(self._remote.line, self._params.tty)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._upload, session)
                group.start_soon(self._obey, session)
                group.start_soon(self._quit, session, group.cancel_scope)
                await self._download(session)
                self._ended.set()
                self._begun.set()
                if not self._leaving.is_set():
                    group.cancel_scope.cancel()
        finally:
            await self._pool.release(line, session)
        if not self._leaving.is_set():
            self._judge(session)
        self._status, self._signal_name = session.status, session.signal

    async def _notice_loss(self) -> None:
        await self._gone.wait()
        self._leaving.set()

    async def _cancel_when_leaving(self, scope: anyio.CancelScope) -> None:
        await self._leaving.wait()
        scope.cancel()

    async def _download(self, session: Session) -> None:
        # With a terminal there is but one stream, and our word is on it too.
        words = Stream.STDERR if self._params.tty is None else Stream.STDOUT
        while pieces := await session.receive():
            for stream, data in pieces:
                if stream is words:
                    data = self._prelude.feed(data)
                    if self._prelude.pid is not None:
                        self._begun.set()
                if data:
                    text = base64.b64encode(data).decode()
                    output = ExecOutput(self._params.token, stream, text)
                    await self._tell("sandbox/execOutput", convert.to_wire(output))

    async def _upload(self, session: Session) -> None:
        await self._begun.wait()
        deaf, inside_line = False, False
        async for data in self._input:
            if data is None and self._params.tty is None:
                await session.send_eof()
            elif data is None:
                await session.send(END_OF_INPUT * (2 if inside_line else 1))
            else:
                deaf = deaf or not await session.send(data)
                inside_line = not data.endswith((b"\n", b"\r")) if data else inside_line
                self._waiting -= len(data)
                self._taken.set()
                self._taken = anyio.Event()

    async def _obey(self, session: Session) -> None:
        await self._begun.wait()
        async for order in self._orders:
            if isinstance(order, str):
                await self._signal(session, order)
            else:
                await session.resize(*order)

    async def _quit(self, session: Session, scope: anyio.CancelScope) -> None:
        await self._leaving.wait()
        with anyio.move_on_after(BEGIN_LIMIT_S):
            await self._begun.wait()
        if self._gone.is_set():
            await self._signal(session, "HUP")
            # Time to end before its channel is closed, and a second knock by pid in case the first
            # was lost with it; what does not care for it goes on, as with ssh.
            with anyio.move_on_after(MERCY_S):
                await self._ended.wait()
            if not self._ended.is_set() and self._prelude.pid is not None:
                await self._helper(run.kill(self._prelude.pid, "HUP"))
        else:
            await self._signal(session, "TERM")
            with anyio.move_on_after(MERCY_S):
                await self._ended.wait()
            if not self._ended.is_set():
                await self._signal(session, "KILL")
            if self._prelude.pid is not None:
                await self._helper(run.sweep(self._prelude.pid))
            with anyio.move_on_after(LAST_LIMIT_S):
                await self._ended.wait()
        scope.cancel()

    async def _signal(self, session: Session, name: str) -> None:
        if name in BY_SSH and await session.kill(name):
            if name != "KILL":
                return
            # It has killed sudo, say, but may not kill what sudo has begun.
            with anyio.move_on_after(KILLED_LIMIT_S):
                await self._ended.wait()
                return
        # Its leader is root's or has ended, or SSH does not know the signal.
        if self._prelude.pid is not None:
            status = await self._helper(run.kill(self._prelude.pid, name))
            if status != 0 and not self._ended.is_set():
                log.info("%s: signal %s could not be sent", self._params.token, name)

    async def _helper(self, command: bytes) -> int | None:
        """Run a short command of ours; its status, None where there is none in time."""
        with anyio.move_on_after(HELPER_LIMIT_S):
            try:
                line, session = await self._pool.run(command)
                try:
                    while await session.receive():
                        pass
                finally:
                    await self._pool.release(line, session)
            except SandboxError as error:
                log.info("%s: %s", self._params.token, error)
            else:
                return session.status
        return None

    def _judge(self, session: Session) -> None:
        if session.status is None and session.signal is None:
            raise ExecFailed(
                "The connection to the guest ended before the command did.",
                hint="The guest was stopped, or its sshd was killed; the command may run on.",
            )
        if self._prelude.pid is None:
            said = bytes(self._prelude.held).decode(errors="replace").strip()
            said = said.removeprefix("bash: line 1: ") or "its shell ended without a word"
            raise ExecFailed(f"The command could not be begun: {said}")

    def _result(self, duration_ms: int) -> ExecResult:
        if self._failure is not None:
            raise self._failure
        if self._leaving.is_set():
            raise RequestCancelled
        name = self._signal_name
        if name is None:
            assert self._status is not None
            return ExecResult(self._status, duration_ms)
        # What the guest says is a name is one only if we know it too.
        number = signal.Signals.__members__.get(f"SIG{name}")
        if number is None:
            return ExecResult(128, duration_ms, UNNAMED)
        return ExecResult(128 + number, duration_ms, name)
