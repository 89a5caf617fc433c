"""The values of commands in the guest and of its console: what streams while a request lasts."""

from __future__ import annotations

import enum

from attrs import field, frozen

from sandbox_rpc.protocol.types import LARGE


@frozen
class Terminal:
    """Size and kind of a terminal."""

    columns: int = 80
    """Characters in a line."""
    rows: int = 24
    """Lines."""
    term: str = "xterm-256color"
    """Value of TERM."""


class Stream(enum.StrEnum):
    """Where output of a command comes from."""

    STDOUT = "stdout"
    """Standard output; all output where the command has a terminal."""
    STDERR = "stderr"
    """Standard error."""


@frozen
class ExecParams:
    """A command to run in the guest, as dev."""

    name: str
    """The sandbox."""
    token: str
    """Names this run in output, input and signals; the client's choice, unique while it runs."""
    argv: list[str]
    """Program and arguments; they arrive as they are, no shell takes them apart."""
    cwd: str | None = None
    """Folder in the guest; by default the workspace."""
    env: dict[str, str] | None = None
    """Variables to set."""
    stdin: bool = False
    """Whether input will come by `sandbox/execInput`; else it is empty."""
    tty: Terminal | None = None
    """Give it a terminal."""


@frozen
class ExecResult:
    """How a command ended."""

    exit_code: int
    """Its exit status; 128 + the signal's number where a signal ended it."""
    duration_ms: int = field(metadata=LARGE)
    """From the request to the end."""
    signal: str | None = None
    """Name of the signal that ended it, without SIG."""


@frozen
class ExecOutput:
    """Output of a command."""

    token: str
    """The run."""
    stream: Stream
    """Where it was written."""
    data: str
    """The bytes, base64."""


@frozen
class ExecInput:
    """Input for a command."""

    token: str
    """The run."""
    data: str = ""
    """The bytes, base64."""
    eof: bool = False
    """Whether the input ends with them."""


@frozen
class ExecSignal:
    """A signal for a command."""

    token: str
    """The run."""
    signal: str
    """Name without SIG: `INT`, `TERM`, `KILL`."""


@frozen
class ExecResize:
    """A new size of a command's terminal."""

    token: str
    """The run."""
    columns: int
    """Characters in a line."""
    rows: int
    """Lines."""


@frozen
class ConsoleAttachParams:
    """How to follow a serial console."""

    name: str
    """The sandbox."""
    stream: str
    """Names this attachment; chosen by the client, unique while it lasts."""
    offset: int | None = field(default=None, metadata=LARGE)
    """Byte offset since power-on to begin at; absent: only what comes from now on."""
    tail: int | None = field(default=None, metadata=LARGE)
    """Begin so many bytes before the present end instead."""
    follow: bool = True
    """Go on with what the guest prints later; else only what there is."""


@frozen
class ConsoleAttached:
    """Where an attachment begins."""

    offset: int = field(metadata=LARGE)
    """Offset of the first byte that will be sent."""
    size: int = field(metadata=LARGE)
    """Bytes since power-on so far."""


@frozen
class ConsoleOutput:
    """A piece of console output."""

    stream: str
    """The attachment."""
    offset: int = field(metadata=LARGE)
    """Byte offset of `data` since power-on."""
    data: str
    """The bytes, base64."""


class ConsoleEnd(enum.StrEnum):
    """Why an attachment ended."""

    DETACHED = "detached"
    """The client asked for it."""
    STOPPED = "stopped"
    """The virtual machine has ended."""
    COMPLETE = "complete"
    """All there was has been sent, and `follow` was false."""


@frozen
class ConsoleClosed:
    """The end of an attachment; all its output has been sent before."""

    stream: str
    """The attachment."""
    reason: ConsoleEnd
    """Why."""


@frozen
class ConsoleWriteParams:
    """Keys for the guest."""

    stream: str
    """The attachment."""
    data: str
    """The bytes, base64."""


@frozen
class ConsoleResizeParams:
    """A new size of the terminal behind an attachment."""

    stream: str
    """The attachment."""
    columns: int
    """Characters in a line."""
    rows: int
    """Lines."""


@frozen
class ConsoleResized:
    """Whether the guest knows the new size."""

    applied: bool
    """A serial line has no size; the guest's agent sets the one programs ask for."""


@frozen
class ConsoleDetachParams:
    """An attachment to end."""

    stream: str
    """The attachment."""
