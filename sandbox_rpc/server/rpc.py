"""pygls with the document half left out, and every request answered.

Taken from pygls: dispatch, message ids, the response to each handler. Changed: what comes in is
checked against our own types (pygls never answers a request whose params do not fit), a cancel is
an event that the work itself obeys (pygls cancels the task, which pierces every shield), and an
unexpected error shows no traceback to the client.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
import cattrs
from lsprotocol import converters
from lsprotocol import types as lsp
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInternalError,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcParseError,
    JsonRpcRequestCancelled,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import JsonRPCNotification, JsonRPCProtocol, JsonRPCRequestMessage
from pygls.server import JsonRPCServer

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.protocol.methods import NOTIFICATIONS, REQUESTS
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.wire import RequestCancelled

log = logging.getLogger(__name__)


@attrs.frozen
class Nothing:
    """Params of a method that takes none."""


@attrs.frozen
class InitializeParams:
    """What we read of LSP's; our own, so that no odd capability can break the handshake."""

    capabilities: Any = None
    """Lua's empty table, for one, comes as an array."""


@attrs.frozen
class CancelParams:
    """Which request to cancel."""

    id: Any


@attrs.frozen
class TokenParams:
    """Which progress to cancel."""

    token: Any


PARAMS: dict[str, type] = {
    lsp.INITIALIZE: InitializeParams,
    lsp.INITIALIZED: Nothing,
    lsp.SHUTDOWN: Nothing,
    lsp.EXIT: Nothing,
    lsp.SET_TRACE: Nothing,
    lsp.CANCEL_REQUEST: CancelParams,
    lsp.WINDOW_WORK_DONE_PROGRESS_CANCEL: TokenParams,
    **{request.method: request.params or Nothing for request in REQUESTS},
    **{note.method: note.params for note in NOTIFICATIONS if note.to_server},
}
ANSWERED = {lsp.INITIALIZE, lsp.SHUTDOWN, *(request.method for request in REQUESTS)}
"""Methods of requests; as notifications they would do work that nobody hears of."""


@attrs.define(eq=False)
class Call:
    """One request under way."""

    id: int | str
    token: int | str | None = None
    """Where its progress goes."""
    cancel: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when the client has cancelled it."""
    afterwards: list[Callable[[], None]] = attrs.field(factory=list)
    """What begins once the answer has been sent."""
    undo: bool = False
    """Whether the work is in this process, and to be undone when the client leaves."""


Handler = Callable[[Any, Call], Awaitable[Any]]


class Protocol(JsonRPCProtocol):
    """Turns bytes into calls."""

    def __init__(self, server: JsonRPCServer, converter: cattrs.Converter) -> None:
        super().__init__(server, converter)
        self.initialized = False
        self.finished = False
        self.calls: dict[int | str, Call] = {}
        self.arrivals: dict[str, Callable[[Any], None]] = {}
        """What happens the moment a request arrives; its handler runs a little later."""

    def receive(self, body: bytes) -> None:
        """Take one message; whatever it is, a request in it is answered."""
        id_: Any = None
        try:
            data = _parsed(body)
            if "method" not in data:
                log.warning("dropped a response: nothing was asked")
                return
            id_ = data.get("id")
            if self._admit(data, is_request="id" in data):
                self.handle_message(self.structure_message(data))
        except JsonRpcException as error:
            if id_ is not None or isinstance(error, (JsonRpcParseError, JsonRpcInvalidRequest)):
                self._send_response(id_, error=error.to_response_error())
            else:
                log.warning("dropped a notification: %s", error)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """The message as pygls dispatches it, with params of the method's own type."""
        method, params = data["method"], data.get("params")
        if (kind := PARAMS.get(method)) is not None:
            try:
                if not isinstance(params, dict | None) and kind is not Nothing:
                    raise convert.Misfit([f"expected object @ {kind.__name__}"])
                params = convert.from_wire({} if params is None else params, kind)
            except convert.Misfit as error:
                problems = [_at(problem, kind) for problem in error.problems]
                raise JsonRpcInvalidParams(
                    f"The params of {method} do not fit: {'; '.join(problems)}",
                    data={"kind": "invalidParams", "problems": problems},
                ) from None
        if "id" in data:
            return JsonRPCRequestMessage(data["id"], method, self.VERSION, params)
        return JsonRPCNotification(method, self.VERSION, params)

    def _handle_request(self, msg_id: Any, method_name: str, params: Any) -> None:
        # Not in the task that will answer: the next message may cancel it already.
        if method_name in self.fm.features:
            token = getattr(params, "work_done_token", None)
            self.calls[msg_id] = Call(msg_id, token=token)
        if (arrive := self.arrivals.get(method_name)) is not None:
            arrive(params)
        super()._handle_request(msg_id, method_name, params)

    def _send_response(self, msg_id: Any, result: Any = None, error: Any = None) -> None:
        # lsprotocol's own class leaves an id out that is null.
        outcome = {"result": result} if error is None else {"error": error}
        self._send_data({"jsonrpc": self.VERSION, "id": msg_id, **outcome})

    def _send_handler_result(self, future: Any, *, msg_id: Any) -> None:
        super()._send_handler_result(future, msg_id=msg_id)
        if (call := self.calls.pop(msg_id, None)) is not None:
            for begin in call.afterwards:
                begin()

    def cancel_token(self, token: object) -> None:
        """Cancel the request that reports under a token."""
        for call in self.calls.values():
            if call.token == token:
                call.cancel.set()

    def _admit(self, data: dict[str, Any], *, is_request: bool) -> bool:
        """Whether a message is to be dispatched; requests that are not are answered."""
        method, id_ = data["method"], data.get("id")
        if not isinstance(method, str):
            raise JsonRpcInvalidRequest("the method is not a string")
        if not is_request and method in ANSWERED:
            log.warning("dropped %s: it takes an id, and has none", method)
            return False
        if is_request and (isinstance(id_, bool) or not isinstance(id_, (int, str))):
            raise JsonRpcInvalidRequest("the id is neither a number nor a string")
        if is_request and id_ in self.calls:
            raise JsonRpcInvalidRequest(f"the id {id_!r} is that of a request under way")
        if self.finished and is_request:
            raise JsonRpcInvalidRequest("the server is shutting down")
        if not self.initialized and is_request and method != lsp.INITIALIZE:
            raise JsonRpcServerNotInitialized("send `initialize` first")
        if self.initialized and method == lsp.INITIALIZE:
            raise JsonRpcInvalidRequest("the server is initialized already")
        return True

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        # Never the task itself: the work undoes what it has begun, then the answer comes.
        if isinstance(msg_id, int | str) and (call := self.calls.get(msg_id)) is not None:
            call.cancel.set()


class Server(JsonRPCServer):
    """A server without documents."""

    protocol: Protocol

    def __init__(self) -> None:
        super().__init__(Protocol, converters.get_converter)

    def answer(self, method: str, handler: Handler) -> None:
        """Serve a request with `handler(params, call)`; what it raises is the answer's error."""

        # Not functools.wraps: pygls would pass the server to a handler whose annotation it fits.
        async def answered(params: Any) -> Any:
            id_ = self.protocol.msg_id
            assert id_ is not None
            call = self.protocol.calls[id_]
            try:
                return convert.to_wire(await handler(params, call))
            except Exception as error:
                raise rpc_error(error) from error

        self.protocol.fm.feature(method)(answered)

    def hear(self, method: str, handler: Callable[[Any], None]) -> None:
        """Serve a notification."""

        def heard(params: Any) -> None:
            handler(params)

        self.protocol.fm.feature(method)(heard)

    def report_server_error(self, error: Exception, source: object) -> None:
        """Nothing: the answer has it, and the log where it is unexpected."""


def invalid(problem: str, field: str = "") -> JsonRpcInvalidParams:
    """The error for params that fit their type and yet cannot be."""
    problems = [f"{problem} @ params{field and '.'}{field}"]
    return JsonRpcInvalidParams(problems[0], data={"kind": "invalidParams", "problems": problems})


def rpc_error(error: BaseException) -> JsonRpcException:
    """What the client is told of an exception."""
    error = unwrapped(error)
    if isinstance(error, JsonRpcException):
        return error
    if isinstance(error, SandboxError):
        wire = error.to_wire()
        return JsonRpcException(wire["message"], wire["code"], wire["data"])
    if isinstance(error, RequestCancelled):
        return JsonRpcRequestCancelled("The request was cancelled.")
    log.error("unexpected error", exc_info=error)
    return JsonRpcInternalError(
        f"{type(error).__name__}: {error}",
        data={"kind": "internal", "hint": "See the server's log."},
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise JsonRpcParseError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("jsonrpc") != "2.0":
        raise JsonRpcInvalidRequest("not a JSON-RPC 2.0 message")
    if "method" not in data and not ("id" in data and ("result" in data or "error" in data)):
        raise JsonRpcInvalidRequest("neither a request, nor a notification, nor a response")
    return data


def _at(problem: str, kind: type) -> str:
    """cattrs names the Python class and field, the client knows `params` and camelCase."""
    what, at, where = problem.partition(" @ ")
    where = where.replace(kind.__name__, "params", 1)
    # Keys of a map, in brackets, are the client's own.
    return (
        what
        + at
        + re.sub(r"\.(\w+)(?![^\[]*\])", lambda field: f".{convert.camel(field[1])}", where)
    )
