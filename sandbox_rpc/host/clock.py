"""The host's clock, when it jumps: it was set, or the host has slept."""

from __future__ import annotations

import ctypes
import errno
import os
from types import TracebackType

import anyio

CLOCK_REALTIME = 0
ABSOLUTE = 1
CANCEL_ON_SET = 2
FAR = 1 << 60
"""Seconds since 1970 that never come."""


class Jumps:
    """A timer for the end of time, which Linux cancels whenever the clock jumps (timerfd(2))."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = self._checked(self._libc.timerfd_create(CLOCK_REALTIME, flags))
        try:
            self._arm()
        except OSError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Jumps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    async def wait(self) -> None:
        """Wait for the next jump."""
        while True:
            await anyio.wait_readable(self._fd)
            try:
                os.read(self._fd, 8)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ECANCELED:
                    raise
            self._arm()
            return

    def _arm(self) -> None:
        # struct itimerspec: interval, value; seconds and nanoseconds each.
        timer = (ctypes.c_int64 * 4)(0, 0, FAR, 0)
        flags = ABSOLUTE | CANCEL_ON_SET
        self._checked(self._libc.timerfd_settime(self._fd, flags, timer, None))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
