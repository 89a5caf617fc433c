"""What long work says while it runs."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Progress:
    """One step of something that takes longer than a second."""

    phase: str
    """Stable word for programs: `image`, `boot`, `login`."""
    message: str
    """The same for people, without a full stop."""
    percentage: int | None = None
    """0 to 100 within the whole operation, where it is known."""
    done_bytes: int | None = None
    """Of a transfer: what is there."""
    total_bytes: int | None = None
    """Of a transfer: all of it."""
    bytes_per_second: int | None = None
    """Of a transfer: lately; None where too little is known."""
    seconds_left: int | None = None
    """Of a transfer: at this rate."""


Report = Callable[[Progress], None]
"""Where progress goes; must not block."""


def silent(_: Progress) -> None:
    """A `Report` for callers that do not watch."""


def said(progress: Progress) -> str:
    """The step for people, with the amounts of a transfer in it."""
    if progress.done_bytes is None or not progress.total_bytes:
        return progress.message
    words = f"{progress.message}, {progress.done_bytes >> 20} of {progress.total_bytes >> 20} MiB"
    if progress.bytes_per_second is not None:
        words += f", {progress.bytes_per_second / (1 << 20):.1f} MiB/s"
    if progress.seconds_left is not None:
        minutes, seconds = divmod(progress.seconds_left, 60)
        words += f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"
    return words
