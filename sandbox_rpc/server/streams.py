"""Consoles: what a client has attached, each followed in a task of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
from attrs import define, field

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol import streams as s
from sandbox_rpc.protocol.errors import ConsoleGone
from sandbox_rpc.sandboxes.console import Console, attach
from sandbox_rpc.server.answers import decoded, encoded
from sandbox_rpc.server.rpc import Call, Handler, invalid

Notify = Callable[[str, Any], None]
Room = Callable[[], Awaitable[None]]


@define(eq=False)
class Attachment:
    """One attached console."""

    console: Console
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    begin: anyio.Event = field(factory=anyio.Event)
    done: anyio.Event = field(factory=anyio.Event)


class Consoles:
    """The attachments of this client."""

    def __init__(
        self, layout: Layout, group: anyio.abc.TaskGroup, notify: Notify, room: Room
    ) -> None:
        self._layout = layout
        self._group = group
        self._notify = notify
        self._room = room
        self._attached: dict[str, Attachment] = {}

    @property
    def table(self) -> dict[str, Handler]:
        """Handlers by method."""
        return {
            "console/attach": self.attach,
            "console/write": self.write,
            "console/resize": self.resize,
            "console/detach": self.detach,
        }

    async def attach(self, params: s.ConsoleAttachParams, call: Call) -> s.ConsoleAttached:
        """`console/attach`."""
        if params.stream in self._attached:
            raise invalid("this stream is attached already", "stream")
        console = await attach(self._layout, params.name, offset=params.offset, tail=params.tail)
        if params.stream in self._attached:
            console.close()
            raise invalid("this stream is attached already", "stream")
        attachment = self._attached[params.stream] = Attachment(console)
        self._group.start_soon(self._follow, params.stream, attachment, params.follow)
        call.afterwards.append(attachment.begin.set)
        return s.ConsoleAttached(console.offset, console.size)

    async def write(self, params: s.ConsoleWriteParams, call: Call) -> None:
        """`console/write`."""
        data = decoded(params.data, "data")
        await self._find(params.stream).console.write(data)

    async def resize(self, params: s.ConsoleResizeParams, call: Call) -> s.ConsoleResized:
        """`console/resize`."""
        console = self._find(params.stream).console
        return s.ConsoleResized(await console.resize(params.columns, params.rows))

    async def detach(self, params: s.ConsoleDetachParams, call: Call) -> None:
        """`console/detach`."""
        attachment = self._find(params.stream)
        attachment.scope.cancel()
        await attachment.done.wait()

    def _find(self, stream: str) -> Attachment:
        try:
            return self._attached[stream]
        except KeyError:
            raise ConsoleGone(
                f"No console is attached as {stream!r}.", hint="Attach first."
            ) from None

    async def _follow(self, stream: str, attachment: Attachment, forever: bool) -> None:
        async def send(offset: int, data: bytes) -> None:
            output = s.ConsoleOutput(stream, offset, encoded(data))
            self._notify("console/output", convert.to_wire(output))
            await self._room()

        reason = s.ConsoleEnd.DETACHED
        try:
            with attachment.scope:
                await attachment.begin.wait()
                reason = await attachment.console.follow(send, forever=forever)
        finally:
            attachment.console.close()
            del self._attached[stream]
            self._notify("console/closed", convert.to_wire(s.ConsoleClosed(stream, reason)))
            attachment.done.set()
