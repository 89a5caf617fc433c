"""Jumps of the host's clock; the real ones cannot be made here, since others use that clock."""

from __future__ import annotations

import errno
import os
import time

import anyio
import pytest

from sandbox_rpc.host.clock import Jumps


def test_a_clock_that_runs_as_it_should_is_no_jump() -> None:
    """A real timer of the kernel, and it is closed at the end."""

    async def main() -> None:
        with Jumps() as jumps:
            with anyio.move_on_after(0.3) as scope:
                await jumps.wait()
            assert scope.cancelled_caught
            fd = jumps._fd
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)

    anyio.run(main)


def test_a_cancelled_timer_is_a_jump_and_armed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel cancels it when the clock is set: the read fails with ECANCELED."""

    async def main() -> None:
        with Jumps() as jumps:
            armed: list[float] = []
            monkeypatch.setattr(jumps, "_arm", lambda: armed.append(time.monotonic()))

            async def readable(_: int) -> None:
                pass

            def read(_: int, __: int) -> bytes:
                raise OSError(errno.ECANCELED, "cancelled")

            monkeypatch.setattr("anyio.wait_readable", readable)
            monkeypatch.setattr("os.read", read)
            with anyio.fail_after(5):
                await jumps.wait()
            assert len(armed) == 1

    anyio.run(main)
