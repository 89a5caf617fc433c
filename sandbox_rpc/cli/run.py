"""What all commands share: parsing, interrupts, errors and exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TypeVar

from sandbox_rpc.cli.commands import COMMANDS, DEFAULT, HIDDEN
from sandbox_rpc.protocol.errors import INTERNAL, SandboxError

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def parser_of(module: ModuleType, name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = argparse.ArgumentParser(
        prog="sandbox" if name == DEFAULT else f"sandbox {name}",
        description=COMMANDS.get(name) or HIDDEN.get(name),
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def command(module: ModuleType, name: str, words: list[str]) -> int:
    """Parse, run, and turn whatever happens into an exit status; no traceback reaches a user."""
    rest: list[str] | None = None
    if "--" in words:
        cut = words.index("--")
        words, rest = words[:cut], words[cut + 1 :]
    if hasattr(module, "expand"):
        words = module.expand(words)
    options = parser_of(module, name).parse_args(words)
    options.command = rest
    try:
        status: int = module.run(options)
        sys.stdout.flush()
        return status
    except SandboxError as error:
        return complain(error, as_json=getattr(options, "json", False))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _reveal(error, as_json=getattr(options, "json", False))
    except Exception as error:
        return _confess(error)


def work(
    verb: Callable[..., Awaitable[T]], *args: object, cancellable: bool = True, **more: object
) -> T:
    """Run an async verb; the first Ctrl-C asks it to undo itself, the second leaves at once.

    `verb` takes a keyword `cancel`, an event, where `cancellable`; else Ctrl-C ends it.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing is left of the work.
    """
    import anyio
    import anyio.abc

    from sandbox_rpc.supervisor.operation import unwrapped
    from sandbox_rpc.supervisor.wire import RequestCancelled

    async def main() -> T:
        cancel = anyio.Event()
        found: list[T] = []

        async def obey(scope: anyio.CancelScope) -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    if cancel.is_set() or not cancellable:
                        scope.cancel()
                    else:
                        print("\nInterrupted, cleaning up.", file=sys.stderr)
                    cancel.set()

        async with anyio.create_task_group() as group:
            group.start_soon(obey, group.cancel_scope)
            if cancellable:
                more["cancel"] = cancel
            found.append(await verb(*args, **more))
            group.cancel_scope.cancel()
        if not found:
            raise RequestCancelled
        return found[0]

    try:
        return anyio.run(main)
    except RequestCancelled:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        error = unwrapped(group)
        if isinstance(error, RequestCancelled):
            raise KeyboardInterrupt from None
        raise error from None


def complain(error: SandboxError, *, as_json: bool) -> int:
    """Print an error, for people or for programs, and return its exit status."""
    if as_json:
        print(json.dumps(error.to_wire()), file=sys.stderr)
        return error.exit_status
    from sandbox_rpc.cli.show import printable

    # Messages may quote the guest, and what a terminal obeys must not come from there.
    first, *rest = error.message.splitlines() or [""]
    print(f"error: {printable(first)}", file=sys.stderr)
    for line in rest:
        print(f"  | {printable(line)}", file=sys.stderr)
    for key, title in (("qemuLog", "QEMU's last words"), ("console", "End of the console")):
        if text := str(error.details.get(key) or "").strip():
            print(f"{title}:", file=sys.stderr)
            for line in text.splitlines()[-15:]:
                print(f"  | {printable(line)}", file=sys.stderr)
    if log := error.details.get("log"):
        print(f"log: {log}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)
    return error.exit_status


def _reveal(error: OSError, *, as_json: bool) -> int:
    """A full disk or a missing right is the user's to cure, wherever it was met."""
    from pathlib import Path

    from sandbox_rpc.host import files

    try:
        with files.translated(Path(str(error.filename or "its files"))):
            raise error
    except SandboxError as known:
        return complain(known, as_json=as_json)
    except OSError:
        return _confess(error)


def _confess(error: Exception) -> int:
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sandbox-fault-", suffix=".log", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
        hint = f"please report it with {file.name}"
    except OSError as second:
        hint = f"its traceback cannot be written: {second}"
    print(
        f"error: a fault in sandbox itself: {type(error).__name__}: {error}\nhint: {hint}",
        file=sys.stderr,
    )
    return INTERNAL
