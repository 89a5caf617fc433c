"""Running the tools of a build: their output to a log and to progress, their end with ours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from sandbox_rpc.protocol.errors import BuildFailed, DiskFull

KEPT_LINES = 15
LINE_MAX = 400
GRACE_S = 5.0
STEPS_PER_PACKAGE = 3
"""Fetched, unpacked, set up."""
TYPICAL_PACKAGES = 200
"""Assumed until apt has counted them all."""


class Log:
    """The log of one build, and its last lines for an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: deque[str] = deque(maxlen=KEPT_LINES)

    def write(self, line: str) -> None:
        shown = line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}…"
        self.last.append(shown)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{shown}\n")

    @property
    def tail(self) -> str:
        return "\n".join(self.last)


async def run(
    argv: Sequence[str],
    log: Log,
    *,
    lock: int,
    line: Callable[[str], None] = lambda _: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.STDOUT,
) -> None:
    """Run one tool to its end; it inherits `lock`. Cancelling ends it and all it has started.

    Raises:
        BuildFailed: it failed; the message ends with the last lines it said.
        DiskFull: it failed for want of room.
    """
    log.write(f"$ {' '.join(argv)}")
    process = await anyio.open_process(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE if stdout == subprocess.STDOUT else stdout,
        stderr=subprocess.STDOUT if stdout == subprocess.STDOUT else subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
        pass_fds=[lock],
    )
    try:
        await _read(process, log, line)
        status = await process.wait()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _end(process)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if status != 0:
        raise failure(log, Path(argv[0]).name, status)


def failure(log: Log, tool: str, status: int) -> BuildFailed | DiskFull:
    """The error of a tool that ended with `status`."""
    if re.search(r"No space left on device|Disk quota exceeded|enough free space", log.tail):
        return DiskFull(f"No space left while {tool} was making the image.", path=str(log.path))
    return BuildFailed(
        f"{tool} failed with status {status}:\n{log.tail}",
        hint=f"The whole log is {log.path}.",
        tool=tool,
        log=str(log.path),
    )


async def _read(process: Process, log: Log, line: Callable[[str], None]) -> None:
    source = process.stdout or process.stderr
    assert source is not None
    rest = ""
    async for text in TextReceiveStream(source, errors="replace"):
        *lines, rest = re.split(r"[\r\n]+", rest + text)
        for each in lines:
            if each.strip():
                log.write(each)
                line(each)
    if rest.strip():
        log.write(rest)
        line(rest)


async def _end(process: Process) -> None:
    # SIGTERM first: mmdebstrap takes its mounts down with it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with anyio.move_on_after(GRACE_S):
            await process.wait()
            break
    # The leader is gone; what is left of its group goes at once, and none of it writes any more
    # when its folder is removed.
    with suppress(ProcessLookupError), anyio.move_on_after(GRACE_S):
        while True:
            os.killpg(process.pid, signal.SIGKILL)
            await anyio.sleep(0.01)


class Steps:
    """How far mmdebstrap has come, 0 to 1, from what apt and dpkg say."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.message = "Asking the mirror"
        self._expected = 0
        self._done = 0

    def line(self, text: str) -> bool:
        """Take one line; whether there is something new to say."""
        before = (round(self.fraction, 2), self.message)
        if found := re.search(r"\b(\d+) newly installed", text):
            # Once for the base system, once for the rest.
            self._expected += int(found[1])
        elif text.startswith("Get:"):
            # Before apt has counted, these are its indexes.
            if self._expected:
                self._package("Downloading packages")
        elif text.startswith("Unpacking "):
            self._package("Unpacking packages")
        elif text.startswith("Setting up "):
            self._package("Setting up packages")
        elif text.startswith("I: running --customize-hook"):
            self._at(0.92, "Configuring the guest")
        elif text.startswith("I: cleaning package lists"):
            self._at(0.96, "Cleaning up")
        return (round(self.fraction, 2), self.message) != before

    def _package(self, message: str) -> None:
        self._done += 1
        total = STEPS_PER_PACKAGE * max(self._expected, TYPICAL_PACKAGES)
        self._at(0.05 + 0.85 * min(1.0, self._done / total), message)

    def _at(self, fraction: float, message: str) -> None:
        self.fraction, self.message = max(self.fraction, fraction), message
