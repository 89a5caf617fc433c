"""Commands in the guest: each run's output to the client, its input and signals from it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol import streams as s
from sandbox_rpc.sandboxes.execute import execute
from sandbox_rpc.server.rpc import Call, Handler, invalid

Notify = Callable[[str, Any], None]
Room = Callable[[], Awaitable[None]]
Order = s.ExecSignal | s.ExecResize


def _inputs() -> tuple[MemoryObjectSendStream[s.ExecInput], MemoryObjectReceiveStream[s.ExecInput]]:
    # Without a bound: what the client has sent is in our memory either way, and waiting here would
    # hold up its other requests.
    return anyio.create_memory_object_stream[s.ExecInput](math.inf)


def _orders() -> tuple[MemoryObjectSendStream[Order], MemoryObjectReceiveStream[Order]]:
    return anyio.create_memory_object_stream[Order](math.inf)


@define(eq=False)
class Run:
    """One command under way."""

    params: s.ExecParams
    input: tuple[MemoryObjectSendStream[s.ExecInput], MemoryObjectReceiveStream[s.ExecInput]] = (
        field(factory=_inputs)
    )
    orders: tuple[MemoryObjectSendStream[Order], MemoryObjectReceiveStream[Order]] = field(
        factory=_orders
    )


class Executions:
    """The commands of this client, by token."""

    def __init__(self, layout: Layout, notify: Notify, room: Room) -> None:
        self._layout = layout
        self._notify = notify
        self._room = room
        self._runs: dict[str, Run] = {}

    @property
    def table(self) -> dict[str, Handler]:
        """Handlers by method."""
        return {"sandbox/exec": self.exec}

    @property
    def heard(self) -> dict[str, Callable[[Any], None]]:
        """Handlers of notifications by method; one about a run that has ended means nothing."""
        return {
            "sandbox/execInput": self._take_input,
            "sandbox/execSignal": self._take_order,
            "sandbox/execResize": self._take_order,
        }

    def expect(self, params: s.ExecParams) -> None:
        """Note a run as its request arrives: input may stand right behind it."""
        self._runs.setdefault(params.token, Run(params))

    async def exec(self, params: s.ExecParams, call: Call) -> s.ExecResult:
        """`sandbox/exec`."""
        run = self._runs.get(params.token)
        if run is None or run.params is not params:
            raise invalid("a run with this token is under way", "token")

        async def output(piece: s.ExecOutput) -> None:
            self._notify("sandbox/execOutput", convert.to_wire(piece))
            await self._room()

        try:
            return await execute(
                self._layout,
                params,
                output=output,
                input=run.input[1],
                control=run.orders[1],
                cancel=call.cancel,
            )
        finally:
            del self._runs[params.token]
            for stream in (*run.input, *run.orders):
                stream.close()

    def _take_input(self, piece: s.ExecInput) -> None:
        if (run := self._runs.get(piece.token)) is not None:
            # What comes behind the end of the input has nowhere to go.
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                run.input[0].send_nowait(piece)
                if piece.eof:
                    run.input[0].close()

    def _take_order(self, order: Order) -> None:
        if (run := self._runs.get(order.token)) is not None:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                run.orders[0].send_nowait(order)
