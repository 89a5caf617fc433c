"""LSP's lifecycle as far as it is read and filled here; a client of LSP's sends more.

What it sends besides is ignored, so that no capability of an editor can break the handshake.
"""

from __future__ import annotations

import enum

from attrs import frozen

from sandbox_rpc.protocol.errors import ProtocolMismatch
from sandbox_rpc.protocol.methods import Notification, Request


@frozen
class ErrorData:
    """`data` of an error; further fields belong to that error."""

    kind: str
    """Stable name of the error: `imageNotFound`, `invalidParams`, `internal`."""
    hint: str | None = None
    """What to do about it."""


@frozen
class ClientSandbox:
    """What a client says of itself."""

    protocol_version: str | None = None
    """The version it was written for, major.minor; the server refuses another major one."""


@frozen
class ClientExperimental:
    """Where LSP puts what is not LSP's."""

    sandbox: ClientSandbox | None = None
    """Ours."""


@frozen
class ClientCapabilities:
    """The part of LSP's client capabilities that is read."""

    experimental: ClientExperimental | None = None
    """What is not LSP's."""


@frozen
class InitializeParams:
    """The part of LSP's params that is read."""

    capabilities: ClientCapabilities | None = None
    """What the client can do."""


@frozen
class Features:
    """What this server offers on this host; the version says what the protocol can express."""

    console: bool
    """Whether `console/*` is answered."""
    exec: bool
    """Whether `sandbox/exec` is answered."""


@frozen
class ServerSandbox:
    """What a server says of itself."""

    protocol_version: str
    """The version it speaks, major.minor."""
    features: Features
    """What it offers."""


@frozen
class ServerExperimental:
    """Where LSP puts what is not LSP's."""

    sandbox: ServerSandbox
    """Ours."""


@frozen
class ServerCapabilities:
    """LSP's server capabilities; none of LSP's own is offered."""

    experimental: ServerExperimental
    """What is not LSP's."""


@frozen
class ServerInfo:
    """Which program answers."""

    name: str
    """`sandbox-rpc`."""
    version: str
    """Version of the program, not of the protocol."""


@frozen
class InitializeResult:
    """Who answers, and what it can do."""

    capabilities: ServerCapabilities
    """What it can do."""
    server_info: ServerInfo
    """Who answers."""


@frozen
class Nothing:
    """No params."""


@frozen
class TraceParams:
    """LSP's trace setting."""

    value: str
    """`off`, `messages` or `verbose`."""


@frozen
class CancelParams:
    """Which request to cancel."""

    id: int | str
    """Its id."""


@frozen
class ProgressCancelParams:
    """Which progress to cancel."""

    token: int | str
    """The `workDoneToken` of the request."""


class ProgressKind(enum.StrEnum):
    """Where in its life a progress is."""

    BEGIN = "begin"
    """The first message."""
    REPORT = "report"
    """Any number of them."""
    END = "end"
    """The last; the answer comes after it."""


@frozen
class ProgressValue:
    """LSP's work-done progress, and the phase."""

    kind: ProgressKind
    """Where in its life it is."""
    title: str | None = None
    """What is being done; with `begin`."""
    message: str | None = None
    """The present step, for people."""
    phase: str | None = None
    """The present step, a stable word for programs: `image`, `boot`, `login`."""
    percentage: int | None = None
    """0 to 100 within the whole, where it is known."""
    cancellable: bool = False
    """Whether a cancel is obeyed now."""
    done_bytes: int | None = None
    """Of a transfer: what is there."""
    total_bytes: int | None = None
    """Of a transfer: all of it."""
    bytes_per_second: int | None = None
    """Of a transfer: lately; absent where too little is known."""
    seconds_left: int | None = None
    """Of a transfer: at this rate."""


@frozen
class ProgressParams:
    """One step of a long request."""

    token: int | str
    """The `workDoneToken` of the request."""
    value: ProgressValue
    """The step."""


REQUESTS = (
    Request(
        "initialize", InitializeParams, InitializeResult,
        "The first request. Any other one before its answer is refused with -32002.",
        (ProtocolMismatch,),
    ),
    Request(
        "shutdown", None, None,
        "Ends the conversation, not the sandboxes: they outlive every client. Requests after it "
        "are refused with -32600.",
    ),
)  # fmt: skip

NOTIFICATIONS = (
    Notification(
        "initialized", Nothing, "From now on `sandbox/didChange` is sent.", to_server=True
    ),
    Notification(
        "exit", Nothing,
        "Ends the server: exit status 0 after `shutdown`, else 1. The end of its standard input "
        "ends it too.", to_server=True,
    ),
    Notification("$/setTrace", TraceParams, "Accepted and ignored.", to_server=True),
    Notification(
        "$/cancelRequest", CancelParams,
        "Undo a request under way. It is answered all the same: with -32800, or with its result "
        "where it was too late.", to_server=True,
    ),
    Notification(
        "window/workDoneProgress/cancel", ProgressCancelParams,
        "The same, by the token of the progress.", to_server=True,
    ),
    Notification("$/progress", ProgressParams, "Progress of a request that took `workDoneToken`."),
)  # fmt: skip
