"""`sandbox doctor`."""

from __future__ import annotations

import argparse

from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.config import sources
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.types import Verdict
from sandbox_rpc.sandboxes.doctor import examine

UNFIT = 10
"""Exit status where no sandbox can be started: the block of host errors."""
MARKS = {Verdict.OK: "ok     ", Verdict.WARNING: "warning", Verdict.ERROR: "ERROR  "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `doctor`."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    layout.make()
    settings = sources.load(None, {}).settings
    report = examine(layout, settings.qemu_binary, settings.warm)
    if options.json:
        show.as_json(report)
    else:
        for check in report.checks:
            print(f"{MARKS[check.status]}  {check.id:14} {check.message}")
            if check.hint:
                print(f"{'':25}-> {check.hint}")
    return 0 if report.ok else UNFIT
