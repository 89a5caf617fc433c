"""`python -m sandbox_rpc.supervisor --announce FD NAME`: started by `spawn`, not by people."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from contextlib import suppress

import anyio

from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.serve import serve
from sandbox_rpc.supervisor.spawn import BUSY, READY


def main() -> int:
    """Hold the lock, serve, end with the machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--announce", type=int, required=True)
    parser.add_argument("name")
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    os.umask(0o077)
    # A terminal's hang-up and interrupt are for the client; the machine goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = Place(Layout.of_user(), names.check(options.name))
    lock = locks.acquire(place.home.supervisor_lock)

    def announce(word: bytes = READY) -> None:
        with suppress(OSError):  # who started us may have died; the machine is for whoever comes
            os.write(options.announce, word + b"\n")
        os.close(options.announce)

    if lock is None:
        announce(BUSY)
        return 0
    anyio.run(serve, place, announce)
    return 0


if __name__ == "__main__":
    sys.exit(main())
