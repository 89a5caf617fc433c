"""The process: one client on stdio, from `initialize` to `exit`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from lsprotocol import types as lsp

from sandbox_rpc import __version__
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ProtocolMismatch
from sandbox_rpc.protocol.frames import FrameError
from sandbox_rpc.protocol.methods import VERSION
from sandbox_rpc.sandboxes.audit import refusals
from sandbox_rpc.sandboxes.watch import changes
from sandbox_rpc.server.answers import Answers
from sandbox_rpc.server.executions import Executions
from sandbox_rpc.server.pipes import FLOOD, Outbox, read_bodies
from sandbox_rpc.server.rpc import Call, InitializeParams, Nothing, Server, TokenParams
from sandbox_rpc.server.streams import Consoles

log = logging.getLogger(__name__)

UNDO_LIMIT_S = 20
"""For work of this process (an image build) to undo itself when the client has gone."""
LAST_WORDS_S = 2
"""For the last answers to leave."""
FEATURES = {"console": True, "exec": True}
MISSPOKEN = 2
"""Exit status after bytes that are not the base protocol."""
UNASKED = 1
"""Exit status of `exit` without `shutdown`, as LSP has it."""


class Session:
    """What the lifecycle needs to know."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.left = anyio.Event()
        """Set by `exit`."""
        self.watched = anyio.Event()
        """Set by `initialized`: from now on the client hears of changes."""

    async def initialize(self, params: InitializeParams, call: Call) -> dict[str, Any]:
        """`initialize`."""
        asked = _wanted_version(params)
        if asked is not None and asked.partition(".")[0] != VERSION.partition(".")[0]:
            raise ProtocolMismatch(
                f"The client speaks protocol {asked}, this server {VERSION}.",
                hint="Use a client and a server of the same major version.",
                supported=[VERSION],
            )
        self.server.protocol.initialized = True
        sandbox = {"protocolVersion": VERSION, "features": FEATURES}
        return {
            "capabilities": {"experimental": {"sandbox": sandbox}},
            "serverInfo": {"name": "sandbox-rpc", "version": __version__},
        }

    async def shutdown(self, params: Nothing, call: Call) -> None:
        """`shutdown`: of the server; no virtual machine is touched."""
        self.server.protocol.finished = True


async def serve() -> int:
    """Serve until the client leaves; returns the exit status."""
    source, sink = _take_stdio()
    server, outbox = Server(), Outbox(sink)
    protocol = server.protocol
    protocol.set_writer(outbox)
    session = Session(server)
    status = 0
    async with anyio.create_task_group() as group:
        _register(server, session, group, outbox)
        group.start_soon(outbox.run)
        group.start_soon(_announce_changes, session, outbox)
        group.start_soon(_announce_refusals, session, outbox)
        async with anyio.create_task_group() as reading:

            async def read() -> None:
                nonlocal status
                try:
                    async for body in read_bodies(source):
                        protocol.receive(body)
                        # What it asks for begins before the next is looked at: `exit` right behind
                        # `shutdown`, a request right behind `initialize`.
                        await anyio.lowlevel.checkpoint()
                        if session.left.is_set():
                            break
                        await outbox.room(FLOOD)
                except FrameError as error:
                    log.error("the client does not speak the base protocol: %s", error)
                    status = MISSPOKEN
                except OSError as error:
                    log.error("the client cannot be read: %s", error)
                reading.cancel_scope.cancel()

            reading.start_soon(read)
            reading.start_soon(_obey_signals, reading.cancel_scope)
            reading.start_soon(_leave_when_set, session.left, reading.cancel_scope)
        if session.left.is_set() and not protocol.finished:
            status = UNASKED
        await _undo(server)
        with anyio.move_on_after(LAST_WORDS_S):
            await outbox.room(0)
        group.cancel_scope.cancel()
    return status


def _take_stdio() -> tuple[int, int]:
    """The client's pipe, out of reach of stray prints and of children that read their stdin."""
    source, sink = os.dup(0), os.dup(1)
    for descriptor in (source, sink):
        os.set_inheritable(descriptor, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


def _register(server: Server, session: Session, group: anyio.abc.TaskGroup, outbox: Outbox) -> None:
    layout = Layout.of_user()
    notify = server.protocol.notify
    answers = Answers(layout, notify)
    consoles = Consoles(layout, group, notify, outbox.room)
    executions = Executions(layout, notify, outbox.room)
    server.answer(lsp.INITIALIZE, session.initialize)
    server.answer(lsp.SHUTDOWN, session.shutdown)
    for table in (answers.table, consoles.table, executions.table):
        for method, handler in table.items():
            server.answer(method, handler)
    for method, hear in executions.heard.items():
        server.hear(method, hear)
    server.protocol.arrivals["sandbox/exec"] = executions.expect
    server.hear(lsp.INITIALIZED, lambda _: session.watched.set())
    server.hear(lsp.EXIT, lambda _: session.left.set())
    server.hear(lsp.SET_TRACE, lambda _: None)

    def cancel_progress(params: TokenParams) -> None:
        server.protocol.cancel_token(params.token)

    server.hear(lsp.WINDOW_WORK_DONE_PROGRESS_CANCEL, cancel_progress)


async def _announce_changes(session: Session, outbox: Outbox) -> None:
    """`sandbox/didChange`; a client that does not read gets the newest value when it does."""
    await session.watched.wait()
    try:
        async for sandbox in changes(Layout.of_user()):
            session.server.protocol.notify("sandbox/didChange", convert.to_wire(sandbox))
            await outbox.room()
    except OSError as error:
        log.error("changes cannot be watched: %s", error)


async def _announce_refusals(session: Session, outbox: Outbox) -> None:
    """`network/didBlock`."""
    await session.watched.wait()
    try:
        async for event in refusals(Layout.of_user()):
            session.server.protocol.notify("network/didBlock", convert.to_wire(event))
            await outbox.room()
    except OSError as error:
        log.error("refusals cannot be watched: %s", error)


async def _obey_signals(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


async def _leave_when_set(left: anyio.Event, scope: anyio.CancelScope) -> None:
    await left.wait()
    scope.cancel()


async def _undo(server: Server) -> None:
    """End what only this client wanted; a start goes on in its supervisor."""
    futures = dict(server.protocol._request_futures)
    for id_, future in futures.items():
        call = server.protocol.calls.get(id_)
        if call is not None and call.undo:
            call.cancel.set()
        else:
            future.cancel()
    if futures:
        # Tasks of pygls, so of asyncio.
        await asyncio.wait(
            [asyncio.ensure_future(_ended(future)) for future in futures.values()],
            timeout=UNDO_LIMIT_S,
        )


async def _ended(future: Any) -> None:
    with suppress(BaseException):
        await asyncio.wrap_future(future) if isinstance(future, Future) else await future


def _wanted_version(params: InitializeParams) -> str | None:
    node: Any = params.capabilities
    for key in ("experimental", "sandbox", "protocolVersion"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None
