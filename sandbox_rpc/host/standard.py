"""Standard streams that are there, whatever the caller has closed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def open_streams() -> None:
    """Open /dev/null in place of each that is closed: else the next file opened would be it."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.close(fd)
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
