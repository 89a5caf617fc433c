"""`python -m sandbox_rpc.network.proxy --config FD`: started by `launch`, not by people."""

from __future__ import annotations

import argparse
import encodings.idna
import os
import socket
import sys
from contextlib import suppress

import anyio
import idna

from sandbox_rpc.network.lockdown import lock_down
from sandbox_rpc.network.proxy import names, settings
from sandbox_rpc.network.proxy.serve import Proxy

# What is loaded late cannot be loaded any more once no file can be opened.
assert encodings.idna
idna.encode("ä.example", uts46=True)


def main() -> int:
    """Forbid ourselves what we do not need, serve, end with the machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=int, required=True)
    options = parser.parse_args()
    with os.fdopen(options.config, "rb") as file:
        start = settings.parse(file.read())
    os.umask(0o077)
    if start.names is not None:
        names.write(start.names)
    layers = [("namespace", not start.namespace, start.namespace or "it sees no file of the host")]
    # The resolver's own libraries come in with the first question.
    with suppress(OSError):
        socket.getaddrinfo(b"localhost", None)

    def lock() -> list[tuple[str, bool, str]]:
        own_view = start.names is not None
        return lock_down(
            unix=False,
            readable=(start.wish.folder, *(() if own_view else start.readable)),
            writable=False,
            changing=("/etc",) if own_view else (),
            growing=(start.wish.journal,),
            threads=True,
            ipv6=True,
            max_file=settings.MAX_FILE,
        )

    async def run() -> None:
        proxy = Proxy(start, layers)
        try:
            await proxy.run(lock)
        finally:
            proxy.close()

    anyio.run(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
