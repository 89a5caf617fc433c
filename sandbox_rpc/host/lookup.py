"""The addresses of names, as this host's own resolver gives them, in bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Mapping

LIMIT_S = 1.5
"""For all names together. A start waits no longer for a resolver that does not answer."""


def addresses(names: Iterable[str], limit_s: float = LIMIT_S) -> Mapping[str, tuple[str, ...]]:
    """IPv4 addresses by name; a name without an answer in time has none. Blocks, never fails."""
    found: dict[str, tuple[str, ...]] = {}

    def look(name: str) -> None:
        try:
            answers = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found[name] = tuple(sorted({str(answer[4][0]) for answer in answers}))

    # getaddrinfo cannot be cancelled: such a thread must not hold up the end of its process.
    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in set(names)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)
