"""A terminal with a program in it: type, and wait for what it shows."""

from __future__ import annotations

import os
import pty
import re
import select
import termios
import time
from types import TracebackType

from tests.vm.host import Host, wait_for


class Terminal:
    """A pty; the program is its only other user."""

    def __init__(self, host: Host, argv: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        try:
            self._child = host.popen(
                argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
            )
        finally:
            os.close(theirs)
        self.shown = b""
        """All that has been shown."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._ours)

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        data = text.encode() if isinstance(text, str) else text
        while data:
            data = data[os.write(self._ours, data) :]

    def until_raw(self) -> None:
        """Wait until the program has the terminal in raw mode; it drops what was typed before."""
        wait_for(lambda: not termios.tcgetattr(self._ours)[3] & termios.ICANON, "raw mode")

    def is_cooked(self) -> bool:
        """Whether lines are edited and echoed, as a shell leaves a terminal."""
        wanted = termios.ICANON | termios.ECHO | termios.ISIG
        return bool(termios.tcgetattr(self._ours)[3] & wanted == wanted)

    def expect(self, pattern: bytes, *, since: int = 0, seconds: float = 40) -> re.Match[bytes]:
        """Wait until it shows what matches, from an offset of `shown` on."""
        limit = time.monotonic() + seconds
        while True:
            if found := re.search(pattern, self.shown[since:]):
                return found
            assert self._take(limit), f"{pattern!r} was not shown, but {self.shown[-2000:]!r}"

    def wait(self, seconds: float = 60) -> int:
        """The program's exit status; what it still shows is taken."""
        limit = time.monotonic() + seconds
        while self._take(limit):
            pass
        return self._child.wait(max(1.0, limit - time.monotonic()))

    def _take(self, limit: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, limit - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the program has closed the terminal
            return False
        self.shown += data
        return bool(data)
