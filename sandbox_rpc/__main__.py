"""`python -m sandbox_rpc --stdio`: the service, where no script was installed."""

from __future__ import annotations

import sys

from sandbox_rpc.server.main import main

if __name__ == "__main__":
    sys.exit(main())
