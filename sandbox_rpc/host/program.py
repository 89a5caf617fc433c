"""How what is started later finds this program again: stubs in the SSH configuration, shells."""

from __future__ import annotations

import os
import sys


def program() -> list[str]:
    """The `sandbox` command, for files that outlive this process.

    Whoever runs it from a place that may go, as an editor does that replaces its extensions, names
    a launcher that stays by `SANDBOX_PROGRAM`.
    """
    if os.path.isabs(launcher := os.environ.get("SANDBOX_PROGRAM", "")):
        return [launcher]
    return [sys.executable, "-P", "-m", "sandbox_rpc.cli.main"]
