"""`python -m sandbox_rpc.network --config FD`: started by `launch`, not by people."""

from __future__ import annotations

import argparse
import os
import sys

from sandbox_rpc.network import settings
from sandbox_rpc.network.lockdown import lock_down
from sandbox_rpc.network.netd import RESOLVER, Netd


def main() -> int:
    """Forbid ourselves what we do not need, serve, end with the machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=int, required=True)
    options = parser.parse_args()
    with os.fdopen(options.config, "rb") as file:
        start = settings.parse(file.read())
    os.umask(0o077)
    if start.resolver is not None:
        with open(RESOLVER, "w") as file:
            file.write(start.resolver)
    layers = [("namespace", not start.namespace, start.namespace or "it sees no file of the host")]
    netd = Netd(start, layers)
    # With a view of its own, the file of name servers is all that can be written there.
    folders = ("/etc",) if start.resolver is not None else start.readable
    layers += lock_down(
        unix=bool(start.routes), readable=folders, writable=start.resolver is not None
    )
    try:
        netd.run()
    finally:
        netd.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
