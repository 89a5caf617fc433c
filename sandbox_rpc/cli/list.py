"""`sandbox list`."""

from __future__ import annotations

import argparse

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.sandboxes.status import every


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `list`."""
    add_json(parser)
    parser.add_argument("--all", "-a", action="store_true", help="also those that are stopped")


def run(options: argparse.Namespace) -> int:
    """Run it."""
    found = runner.work(every, Layout.of_user(), stopped=options.all, cancellable=False)
    if options.json:
        show.as_json(found)
    elif found:
        rows = [["NAME", "STATE", "ACCEL", "MEMORY", "PORT", "WORKSPACE"]]
        rows += [
            [
                one.name,
                str(one.state),
                one.accelerator or "-",
                f"{one.memory_mib} MiB" if one.memory_mib else "-",
                str(one.ssh.port) if one.ssh else "-",
                show.printable(one.workspace),
            ]
            for one in found
        ]
        show.table(rows)
    return 0
