"""`sandbox stop`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json, add_target
from sandbox_rpc.config import flags, sources
from sandbox_rpc.host import names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.sandboxes.changes import changes, summary
from sandbox_rpc.sandboxes.find import find
from sandbox_rpc.sandboxes.status import is_alive
from sandbox_rpc.sandboxes.stop import stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `stop`."""
    add_target(parser)
    add_json(parser)
    parser.add_argument("--all", "-a", action="store_true", help="stop every sandbox")
    flags.add_flags(parser, "stop")
    parser.add_argument("--force", action="store_true", help="do not ask the guest's programs")


def run(options: argparse.Namespace) -> int:
    """Run it; with --all one failure does not keep the others running."""
    layout = Layout.of_user()
    if not options.all:
        record = find(layout, options.sandbox).record
        return _stop(layout, record, options)
    worst = 0
    for record in names.every(layout):
        if is_alive(layout, record.name) or layout.room(record.name).folder.exists():
            try:
                _stop(layout, record, options)
            except SandboxError as error:
                worst = runner.complain(error, as_json=options.json)
    return worst


def _stop(layout: Layout, record: Record, options: argparse.Namespace) -> int:
    overrides = flags.from_namespace(options)
    limit_s = sources.load(record.workspace, overrides).settings.stop_timeout_s if overrides else 0
    ticker = show.Ticker(quiet=options.json or not sys.stderr.isatty())
    try:
        sandbox = runner.work(
            stop,
            layout,
            record,
            force=options.force,
            limit_s=limit_s,
            report=ticker,
            cancellable=False,
        )
    finally:
        ticker.clear()
    if options.json:
        show.as_json(sandbox)
    else:
        print(f"{record.name} is stopped.")
        with suppress(SandboxError):
            if (said := summary(changes(layout, record))) is not None:
                print(f"warning: {show.printable(said)}", file=sys.stderr)
    return 0
