"""`sandbox console`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli.target import add_target
from sandbox_rpc.console.attach import attach
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotRunning
from sandbox_rpc.sandboxes.find import find
from sandbox_rpc.sandboxes.status import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `console`."""
    add_target(parser)
    parser.add_argument(
        "--raw",
        action="store_true",
        help="pass also what sets the clipboard or title or makes the terminal answer",
    )


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    found = find(layout, options.sandbox)
    sandbox = runner.work(status, layout, found.record, cancellable=False)
    if sandbox.console_socket is None:
        raise SandboxNotRunning(f"{sandbox.name} is {sandbox.state}.")
    print(f"Console of {sandbox.name}; Ctrl+] leaves it.", file=sys.stderr)
    left = anyio.run(_attach, Path(sandbox.console_socket), options.raw)
    print("\nLeft the console." if left else "\nThe console has ended.", file=sys.stderr)
    return 0


async def _attach(socket: Path, raw: bool) -> bool:
    return await attach(socket, raw=raw)
