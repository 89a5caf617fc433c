"""JSON-RPC between a client and a supervisor: the same frames, methods and errors as on stdio.

The supervisor speaks first: a notification `supervisor/1` with its name, process and version. The
number is the protocol's major version, and any version can `status` and `stop` any other.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from sandbox_rpc.protocol import errors, frames
from sandbox_rpc.protocol.errors import SandboxError

log = logging.getLogger(__name__)

GREETING = "supervisor/1"
REQUEST_CANCELLED = -32800
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603

Params = dict[str, Any]
Answer = Callable[[str, Params, int], Awaitable[Any]]
"""Answers a request: method, params, id."""
Hear = Callable[[str, Params], Awaitable[None] | None]
"""Takes a notification: method, params; what it returns is waited for before the next message."""


class RequestCancelled(Exception):
    """The answer to a request that its sender has cancelled."""


class PeerGone(Exception):
    """The connection ended before the answer came."""


class Peer:
    """One end of a connection; either side asks, answers and announces."""

    def __init__(
        self,
        stream: anyio.abc.ByteStream,
        *,
        answer: Answer | None = None,
        hear: Hear | None = None,
    ) -> None:
        self._stream = stream
        self._answer = answer
        self._hear = hear
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[anyio.Event, list[Params]]] = {}
        self._sending = anyio.Lock()
        self._answering = 0
        self._idle = anyio.Event()
        self._open = True
        self.gone = anyio.Event()
        """Set when the other end has closed the connection."""

    async def ask(
        self, method: str, params: Params, *, on_id: Callable[[int], None] = lambda _: None
    ) -> Any:
        """Send a request and wait for its result; `on_id` learns the id, for a later cancel.

        Raises:
            SandboxError: the peer answered with one.
            RequestCancelled: it was cancelled.
            PeerGone: the connection ended.
        """
        id_, done = next(self._ids), anyio.Event()
        reply: list[Params] = []
        self._waiting[id_] = done, reply
        try:
            on_id(id_)
            await self._send({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
            if self._open:
                await done.wait()
        finally:
            del self._waiting[id_]
        if not reply:
            raise PeerGone(f"the connection ended during {method}")
        if (error := reply[0].get("error")) is None:
            return reply[0].get("result")
        if error.get("code") == REQUEST_CANCELLED:
            raise RequestCancelled
        raise errors.from_wire(error)

    async def tell(self, method: str, params: Params) -> None:
        """Send a notification; a peer that has gone does not hear it."""
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def run(self) -> None:
        """Take messages until the connection ends; each request is answered in a task of its own.

        Requests that are being answered go on when the connection ends: whoever answers decides
        what a lost client means.
        """
        decoder = frames.Decoder()
        async with anyio.create_task_group() as group:
            try:
                async for data in self._stream:
                    for body in decoder.feed(data):
                        await self._take(json.loads(body), group)
            except (
                anyio.BrokenResourceError, anyio.ClosedResourceError, OSError,
                frames.FrameError, ValueError, AttributeError,
            ):  # fmt: skip
                pass
            self._open = False
            self.gone.set()
            for done, _ in self._waiting.values():
                done.set()

    async def answered(self) -> None:
        """Wait until every request that has come in is answered."""
        while self._answering:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _take(self, message: Params, group: anyio.abc.TaskGroup) -> None:
        method, id_ = message.get("method"), message.get("id")
        if method is None:
            if waiter := self._waiting.get(id_ if isinstance(id_, int) else -1):
                waiter[1].append(message)
                waiter[0].set()
        elif id_ is None:
            heard = self._hear and self._hear(method, message.get("params") or {})
            if heard is not None:
                await heard
        else:
            self._answering += 1
            group.start_soon(self._reply, method, message.get("params") or {}, id_)

    async def _reply(self, method: str, params: Params, id_: int) -> None:
        try:
            await self._send(
                {"jsonrpc": "2.0", "id": id_, **await self._outcome(method, params, id_)}
            )
        finally:
            self._answering -= 1
            self._idle.set()

    async def _outcome(self, method: str, params: Params, id_: int) -> Params:
        try:
            if self._answer is None:
                raise LookupError(method)
            return {"result": await self._answer(method, params, id_)}
        except SandboxError as error:
            return {"error": error.to_wire()}
        except RequestCancelled:
            return {"error": {"code": REQUEST_CANCELLED, "message": "The request was cancelled."}}
        except LookupError:
            return {
                "error": {
                    "code": METHOD_NOT_FOUND,
                    "message": f"No method {method}.",
                    "data": {"kind": "methodNotFound"},
                }
            }
        except Exception:
            log.exception("answering %s failed", method)
            return {
                "error": {
                    "code": INTERNAL_ERROR,
                    "message": "Internal error; the log has more.",
                    "data": {"kind": "internal"},
                }
            }

    async def _send(self, message: Params) -> None:
        if not self._open:
            return
        try:
            async with self._sending:
                await self._send_whole(frames.encode(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._open = False

    async def _send_whole(self, frame: bytes) -> None:
        try:
            await self._stream.send(frame)
        except anyio.get_cancelled_exc_class():
            # Nobody can tell how much of the frame has left, so nothing may follow it.
            self._open = False
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise
