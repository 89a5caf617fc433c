"""The phases of a start: told while they run, timed when they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.protocol.types import Phase
from sandbox_rpc.supervisor.state import Store

SHARE = {
    "image": 0, "disk": 5, "identity": 8, "qemu": 12, "kernel": 15, "boot": 40, "login": 75,
    "settle": 95,
}  # fmt: skip
"""Percentage of a start at which each phase begins, from measured cold starts."""


class Steps:
    """Where a start has got to."""

    def __init__(self, store: Store, report: Report) -> None:
        self._store = store
        self.report = report
        self.phases: list[Phase] = []

    @contextmanager
    def step(self, name: str, message: str, percentage: int | None = None) -> Iterator[None]:
        """One phase; `percentage` is where it begins, unless that is as in a cold start."""
        self._store.change(phase=name)
        share = SHARE.get(name) if percentage is None else percentage
        self.report(Progress(name, message, share))
        began = time.monotonic()
        yield
        self.phases.append(Phase(name, round(time.monotonic() - began, 3)))

    def say(self, message: str) -> None:
        """Something about the phase that is under way."""
        self.report(Progress(self._store.sandbox.phase or "", message))
