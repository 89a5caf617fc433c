"""`sandbox start`: return when the sandbox is ready."""

from __future__ import annotations

import argparse
import sys

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.config import flags
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.types import Sandbox
from sandbox_rpc.sandboxes.start import Start, start


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of everything that starts a sandbox."""
    parser.add_argument("folder", nargs="?", default=".", help="folder to share (default: this)")
    parser.add_argument("--name", help="name for the sandbox (default: from the folder's)")
    parser.add_argument("--force", action="store_true", help="share it even if refused; nest")
    parser.add_argument("--kvm", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--timing", action="store_true", help="show how long each phase took")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    flags.add_flags(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `start`."""
    add_start_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the sandbox as JSON")


def begin(options: argparse.Namespace, *, quiet: bool = False) -> Sandbox:
    """Start what the options ask for, with progress."""
    ticker = show.Ticker(quiet=quiet or options.quiet)
    wanted = Start(options.folder, options.name, flags.from_namespace(options), force=options.force)
    try:
        sandbox = runner.work(start, Layout.of_user(), wanted, report=ticker)
    finally:
        ticker.clear()
    if ticker.has_moved and not (quiet or options.quiet):
        show.warnings(sandbox)
    if options.timing:
        timing(sandbox)
    return sandbox


def timing(sandbox: Sandbox) -> None:
    """Print the phases of a start."""
    if sandbox.startup is None:
        return
    phases = sandbox.startup.phases
    total = sum(phase.seconds for phase in phases)
    for phase in phases:
        print(f"{phase.seconds:8.3f} s  {phase.name}", file=sys.stderr)
    print(f"{total:8.3f} s  {sandbox.startup.kind}", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    sandbox = begin(options)
    if options.json:
        show.as_json(sandbox)
    else:
        print(f"{sandbox.name} is running; `sandbox enter {sandbox.name}` opens a shell.")
    return 0
