"""How progress, values and tables look."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.progress import Progress, said
from sandbox_rpc.protocol.types import Sandbox

BAR = 20
"""Characters of a bar."""


class Ticker:
    """Progress on stderr: one line that changes on a terminal, a line for each step elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._last = ""
        self._drawn = False
        self._tenth = 0

    @property
    def has_moved(self) -> bool:
        """Whether there was any progress: a sandbox that ran already makes none."""
        return bool(self._last)

    def __call__(self, progress: Progress) -> None:
        """Show a step."""
        if self._quiet:
            self._last = progress.message
            return
        share = "" if progress.percentage is None else f" {progress.percentage:3d}%"
        if self._live:
            elapsed = time.monotonic() - self._began
            line = f"{elapsed:5.1f} s{share}  {bar(progress)}{said(progress)}"
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{line[:width]}")
            sys.stderr.flush()
            self._drawn = True
        elif progress.message != self._last:
            print(f"{progress.message} ...", file=sys.stderr, flush=True)
            self._tenth = _tenth(progress)
        elif _tenth(progress) > self._tenth:
            # A log wants to hear of a long transfer too, but not four times a second.
            print(said(progress), file=sys.stderr, flush=True)
            self._tenth = _tenth(progress)
        self._last = progress.message

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def bar(progress: Progress) -> str:
    """How much of a transfer is done, as a bar; nothing of what is none."""
    if progress.done_bytes is None or not progress.total_bytes:
        return ""
    full = min(BAR, BAR * progress.done_bytes // progress.total_bytes)
    return f"[{'#' * full}{'-' * (BAR - full)}] "


def _tenth(progress: Progress) -> int:
    if progress.done_bytes is None or not progress.total_bytes:
        return 0
    return 10 * progress.done_bytes // progress.total_bytes


def as_json(value: Any) -> None:
    """Print a value as it goes over the wire."""
    print(json.dumps(convert.to_wire(value), indent=2))


def as_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(convert.to_wire(value)))


def warnings(sandbox: Sandbox) -> None:
    """Print what the user should know."""
    for warning in sandbox.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def fields(pairs: Sequence[tuple[str, str | None]]) -> None:
    """Print names and values below each other; what is absent is left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {printable(value)}")


def printable(text: str) -> str:
    """Text on one line that moves no cursor, whatever is in it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c) & 0xFF:02x}" for c in text)
