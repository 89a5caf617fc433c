"""Run a command in the guest over the supervisor's own connection, which costs no login."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ExecFailed, SandboxNotRunning
from sandbox_rpc.protocol.streams import (
    ExecInput,
    ExecOutput,
    ExecParams,
    ExecResize,
    ExecResult,
    ExecSignal,
)
from sandbox_rpc.protocol.types import State
from sandbox_rpc.sandboxes.status import status
from sandbox_rpc.supervisor import client
from sandbox_rpc.supervisor.wire import Params, Peer, PeerGone, RequestCancelled

Output = Callable[[ExecOutput], Awaitable[None]]
"""Takes a piece of output; while it waits, the command is held up and nothing else."""


async def execute(
    layout: Layout,
    params: ExecParams,
    *,
    output: Output,
    input: MemoryObjectReceiveStream[ExecInput] | None = None,  # noqa: A002 (what it is)
    control: MemoryObjectReceiveStream[ExecSignal | ExecResize] | None = None,
    cancel: anyio.Event | None = None,
) -> ExecResult:
    """Run a command to its end; all its output has been taken before this returns.

    Input is read from its stream as fast as the command reads, and where that stream ends before
    an `eof` came, the command's input ends too. Setting `cancel` ends the command with TERM, then
    KILL, and its output is heard no more. Being cancelled oneself hangs up on it, as does the end
    of this process. Tokens need to be unique only among what runs on one connection, and each call
    has its own.

    Raises:
        SandboxNotFound, SandboxNotRunning: there is no guest to run it in.
        SettingInvalid: this is no command.
        SshUnreachable: no login into the guest succeeded.
        ExecFailed: it did not begin (a missing folder, too long a command line), or its end is not
            known, since the guest or the connection to it ended first.
        RequestCancelled: `cancel` was set, and nothing of the command is left.
    """
    record = names.read(layout, params.name)
    sandbox = await status(layout, record)
    if sandbox.state is not State.RUNNING:
        raise SandboxNotRunning(f"{params.name} is {sandbox.state}.", name=params.name)
    conversation = _Conversation(params, output, input, control, cancel)
    try:
        answer = await client.ask(
            layout.home(params.name),
            "sandbox/exec",
            convert.to_wire(params),
            cancel=cancel,
            hear=conversation.hear,
            meanwhile=conversation.talk,
        )
    except PeerGone:
        if conversation.failure is not None:
            raise conversation.failure from None
        if cancel is not None and cancel.is_set():
            raise RequestCancelled from None
        raise ExecFailed(
            "The supervisor ended before the command did.",
            hint=f"Its log is {layout.home(params.name).supervisor_log}.",
        ) from None
    return convert.from_wire(answer, ExecResult)


class _Conversation:
    """What goes to and fro between a command's begin and its end."""

    def __init__(
        self,
        params: ExecParams,
        output: Output,
        input_: MemoryObjectReceiveStream[ExecInput] | None,
        control: MemoryObjectReceiveStream[ExecSignal | ExecResize] | None,
        cancel: anyio.Event | None,
    ) -> None:
        self._params = params
        self._output = output
        self._input = input_
        self._control = control
        self._cancel = cancel
        self._taking = anyio.CancelScope()
        self.failure: Exception | None = None
        """What `output` raised, which ends the conversation."""

    async def hear(self, method: str, params: Params) -> None:
        if method != "sandbox/execOutput" or self._taking.cancel_called:
            return
        piece = convert.from_wire(params, ExecOutput)
        try:
            with self._taking:
                await self._output(piece)
        except Exception as error:
            self.failure = error
            raise
        if not self._taking.cancel_called:
            self._taking = anyio.CancelScope()

    async def talk(self, peer: Peer) -> None:
        async with anyio.create_task_group() as group:
            if self._cancel is not None:
                group.start_soon(self._stop_taking, self._cancel)
            if self._control is not None:
                group.start_soon(self._steer, peer, self._control)
            if self._params.stdin:
                await self._feed(peer)

    async def _stop_taking(self, cancel: anyio.Event) -> None:
        # The answer comes behind output that nobody may be taking any more.
        await cancel.wait()
        self._taking.cancel()

    async def _feed(self, peer: Peer) -> None:
        ended = False
        if self._input is not None:
            async for piece in self._input:
                # As a request, whose answer comes when the next piece is welcome.
                await self._ask(peer, piece)
                ended = ended or piece.eof
        if not ended:
            await self._ask(peer, ExecInput(self._params.token, eof=True))

    async def _ask(self, peer: Peer, piece: ExecInput) -> None:
        with suppress(PeerGone):
            await peer.ask("sandbox/execInput", convert.to_wire(piece))

    async def _steer(
        self, peer: Peer, control: MemoryObjectReceiveStream[ExecSignal | ExecResize]
    ) -> None:
        async for order in control:
            what = "execSignal" if isinstance(order, ExecSignal) else "execResize"
            await peer.tell(f"sandbox/{what}", convert.to_wire(order))
