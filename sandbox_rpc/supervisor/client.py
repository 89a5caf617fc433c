"""Ask a supervisor for something; what every verb is made of."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from sandbox_rpc.host import sockets
from sandbox_rpc.host.paths import Home
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ProtocolMismatch, SandboxNotRunning
from sandbox_rpc.protocol.progress import Progress, Report, silent
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.wire import GREETING, Hear, Params, Peer, PeerGone, RequestCancelled

GREETING_LIMIT_S = 10


async def ask(
    home: Home,
    method: str,
    params: Params,
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
    sent_before: bool = False,
    hear: Hear | None = None,
    meanwhile: Callable[[Peer], Coroutine[Any, Any, None]] | None = None,
) -> object:
    """Send one request to the supervisor of a sandbox and wait for the result.

    Setting `cancel` asks it to undo the work; the call then ends with `RequestCancelled` once
    nothing is left. Being cancelled itself, or killed, only loses the connection: the work goes on.
    With `sent_before`, a supervisor that has died may have begun with it, so its successor is asked
    to undo it even where `cancel` is set already.
    `hear` takes what the supervisor tells, `meanwhile` may tell it more until the answer comes.

    Raises:
        RequestCancelled: `cancel` was set, and the work is undone or was never asked for.
        SandboxNotRunning: no supervisor answers.
        ProtocolMismatch: it speaks another major version.
        PeerGone: it ended before it answered.
        SandboxError: whatever it answered.
    """
    try:
        stream = await sockets.connect(home.supervisor_socket)
    except OSError:
        raise SandboxNotRunning(f"{home.folder.name} is not running.") from None

    greeted = anyio.Event()
    greetings: list[str] = []

    def take(method: str, params: Params) -> Awaitable[None] | None:
        if not greeted.is_set():
            greetings.append(method)
            greeted.set()
        elif method == "$/progress":
            report(convert.from_wire(params.get("value"), Progress))
        elif hear is not None:
            return hear(method, params)
        return None

    async def run(peer: Peer) -> None:
        await peer.run()
        greeted.set()  # one that has died will not greet

    async def converse() -> object:
        result: object = None
        async with stream, anyio.create_task_group() as group:
            peer = Peer(stream, hear=take)
            group.start_soon(run, peer)
            with anyio.move_on_after(GREETING_LIMIT_S):
                await greeted.wait()
            check_greeting(greetings, home.folder.name)
            ids: list[int] = []
            if cancel is not None:
                if cancel.is_set() and not sent_before:
                    raise RequestCancelled
                group.start_soon(_forward_cancel, peer, cancel, ids)

            def asked(id_: int) -> None:
                ids.append(id_)
                if meanwhile is not None:
                    group.start_soon(meanwhile, peer)

            result = await peer.ask(method, params, on_id=asked)
            group.cancel_scope.cancel()
        return result

    try:
        return await converse()
    except BaseExceptionGroup as group:
        error = unwrapped(group)
        if isinstance(error, (json.JSONDecodeError, convert.Misfit)):
            raise PeerGone("the supervisor sent what nobody understands") from None
        raise error from None


def check_greeting(greetings: list[str], name: str) -> None:
    """Refuse a peer that is silent or of another major version.

    Raises:
        PeerGone: it said nothing.
        ProtocolMismatch: it speaks another version.
    """
    if not greetings:
        raise PeerGone("the supervisor did not greet")
    if greetings[0] != GREETING:
        raise ProtocolMismatch(
            f"The supervisor of {name} speaks {greetings[0]}, this program {GREETING}.",
            hint="Stop it with the version that started it.",
            found=greetings[0],
        )


async def _forward_cancel(peer: Peer, cancel: anyio.Event, ids: list[int]) -> None:
    await cancel.wait()
    await peer.tell("$/cancelRequest", {"id": ids[0]})
