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


Report = Callable[[Progress], None]
"""Where progress goes; must not block."""


def silent(_: Progress) -> None:
    """A `Report` for callers that do not watch."""
