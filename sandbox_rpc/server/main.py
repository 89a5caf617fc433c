"""`sandbox-rpc --stdio`."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from sandbox_rpc import __version__
from sandbox_rpc.host import standard

LEVELS = ("debug", "info", "warning", "error")


def main() -> int:
    """Serve one client; returns the exit status."""
    standard.open_streams()
    parser = argparse.ArgumentParser(
        prog="sandbox-rpc",
        description="JSON-RPC service for sandboxes; protocol/README.md describes it.",
    )
    parser.add_argument("--stdio", action="store_true", help="serve on stdin and stdout (default)")
    parser.add_argument("--log-level", choices=LEVELS, default="warning", help="of stderr")
    parser.add_argument("--version", action="version", version=f"sandbox-rpc {__version__}")
    options = parser.parse_args()
    if sys.stdin.isatty():
        parser.error("this is for programs; people use `sandbox`")
    logging.basicConfig(
        stream=sys.stderr,
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # It logs every message it sends, and each error that the client gets as an answer.
    logging.getLogger("pygls").setLevel(logging.CRITICAL)
    os.umask(0o077)

    import anyio

    from sandbox_rpc.server.serve import serve

    return anyio.run(serve)


if __name__ == "__main__":
    sys.exit(main())
