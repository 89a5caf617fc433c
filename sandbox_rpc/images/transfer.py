"""What the process that moves images says while it does."""

from __future__ import annotations

import time
from collections.abc import Callable

from sandbox_rpc.images.fetch import Pace
from sandbox_rpc.protocol.progress import Progress, Report

INTERVAL_S = 0.25
OVER_S = 5.0
SOON_S = 1.0
"""After which a rate means something."""


class Transfer:
    """Bytes as progress: the total, the rate lately, the time left; at most four times a second."""

    def __init__(
        self,
        report: Report,
        message: str,
        total: int,
        *,
        phase: str = "image",
        share: tuple[int, int] = (0, 100),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._message = message
        self._total = total
        self._phase = phase
        self._share = share
        self._clock = clock
        self._pace = Pace(OVER_S, clock)
        self._began = clock()
        self._last = -INTERVAL_S
        self._before: int | None = None

    def tell(self, done: int) -> None:
        """So many bytes are there."""
        # What an earlier download left is not of this one's rate.
        self._pace.add(done - self._before if self._before is not None else 0)
        self._before = done
        now = self._clock()
        if now - self._last < INTERVAL_S and done < self._total:
            return
        self._last = now
        rate = int(self._pace.rate) if now - self._began >= SOON_S else None
        first, last = self._share
        part = done / self._total if self._total else 1.0
        self._report(
            Progress(
                self._phase,
                self._message,
                int(first + (last - first) * min(1.0, part)),
                done_bytes=done,
                total_bytes=self._total,
                bytes_per_second=rate,
                seconds_left=round((self._total - done) / rate) if rate else None,
            )
        )
