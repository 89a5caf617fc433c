"""The commands that run in a guest, and who asked for each."""

from __future__ import annotations

import binascii
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ExecFailed, SandboxError, SettingInvalid
from sandbox_rpc.protocol.streams import (
    ExecInput,
    ExecParams,
    ExecResize,
    ExecResult,
    ExecSignal,
)
from sandbox_rpc.ssh.config import Endpoint
from sandbox_rpc.ssh.pool import Pool
from sandbox_rpc.supervisor.execution import Execution, Tell
from sandbox_rpc.supervisor.wire import Params

T = TypeVar("T")

log = logging.getLogger(__name__)

METHODS = frozenset({"sandbox/execInput", "sandbox/execSignal", "sandbox/execResize"})
"""What a client may say to a command that runs."""


class Executions:
    """Every command of a machine, by client and token."""

    def __init__(
        self, endpoint: Callable[[], Endpoint], key: Path, group: anyio.abc.TaskGroup
    ) -> None:
        self._endpoint = endpoint
        self._group = group
        self._running: dict[tuple[int, str], Execution] = {}
        self._waiters: dict[object, Execution] = {}
        self.pool = Pool(endpoint, key, group)

    async def run(
        self, params: Params, waiter: tuple[int, int], tell: Tell, gone: anyio.Event
    ) -> ExecResult:
        """Run a command for a client, named by the first half of `waiter`.

        Raises:
            SandboxNotRunning: there is nothing to run it in.
            SettingInvalid: the request does not describe a command.
            ExecFailed, SshUnreachable, RequestCancelled: as for `Execution.run`.
        """
        wanted = _fit(params, ExecParams)
        self._endpoint()
        key = waiter[0], wanted.token
        if key in self._running:
            raise ExecFailed(
                f"The token {wanted.token!r} names a command that is still running.",
                hint="Choose another token.",
            )
        execution = Execution(wanted, self.pool, tell, gone)
        # All up to here without waiting: input that came right behind the request finds it.
        self._running[key] = self._waiters[waiter] = execution
        try:
            return await execution.run()
        finally:
            del self._running[key], self._waiters[waiter]

    def leave(self, waiter: object) -> None:
        """A client has cancelled its request."""
        if execution := self._waiters.get(waiter):
            execution.leave()

    def hear(self, client: int, method: str, params: Params) -> None:
        """Take a notification, after the requests that came before it."""
        self._group.start_soon(self._hear, client, method, params)

    async def take(self, client: int, method: str, params: Params) -> None:
        """Take input, a signal or a size; the answer to input comes when more is welcome.

        A command that has just ended does not mind.

        Raises:
            SettingInvalid: it is none.
        """
        wanted: ExecInput | ExecSignal | ExecResize
        match method:
            case "sandbox/execInput":
                wanted = _fit(params, ExecInput)
            case "sandbox/execSignal":
                wanted = _fit(params, ExecSignal)
            case _:
                wanted = _fit(params, ExecResize)
        execution = self._running.get((client, wanted.token))
        if execution is None:
            log.info("%s for %r, which does not run", method, wanted.token)
            return
        match wanted:
            case ExecInput():
                try:
                    data = binascii.a2b_base64(wanted.data, strict_mode=True)
                except ValueError as error:
                    raise SettingInvalid(f"The input is not base64: {error}.") from None
                execution.feed(data, eof=wanted.eof)
                await execution.room()
            case ExecSignal():
                execution.order(wanted.signal)
            case ExecResize():
                execution.order((wanted.columns, wanted.rows))

    async def _hear(self, client: int, method: str, params: Params) -> None:
        try:
            await self.take(client, method, params)
        except SandboxError as error:
            log.info("%s: %s", method, error)


def _fit(params: Params, kind: type[T]) -> T:
    try:
        return convert.from_wire(params, kind)
    except convert.Misfit as error:
        raise SettingInvalid(f"The request does not fit: {error}.") from None
