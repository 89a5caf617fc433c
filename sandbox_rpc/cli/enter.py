"""`sandbox enter`: a shell in a running sandbox."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli.target import add_target
from sandbox_rpc.host import process
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotRunning
from sandbox_rpc.protocol.types import State
from sandbox_rpc.sandboxes.exec import ssh_command
from sandbox_rpc.sandboxes.find import Found, find
from sandbox_rpc.sandboxes.status import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `enter`."""
    add_target(parser)


def running(layout: Layout, target: str | None) -> Found:
    """The sandbox that is meant, if it runs.

    Raises:
        SandboxNotFound, SandboxNotRunning: it does not.
    """
    found = find(layout, target)
    sandbox = runner.work(status, layout, found.record, cancellable=False)
    if sandbox.state is not State.RUNNING:
        raise SandboxNotRunning(
            f"{sandbox.name} is {sandbox.state}.",
            hint=f"Start it: sandbox start {found.record.workspace}",
        )
    return found


def become(
    layout: Layout,
    name: str,
    argv: Sequence[str],
    *,
    folder: str,
    tty: bool | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Turn into the ssh that runs `argv`; its exit status is then ours."""
    if tty is None:
        tty = sys.stdin.isatty() and sys.stdout.isatty()
    command = ssh_command(
        layout.home(name).ssh_config, name, argv, folder=folder, tty=tty, environment=environment
    )
    sys.stdout.flush()
    os.execv(process.find("ssh"), command)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    found = running(layout, options.sandbox)
    return become(layout, found.record.name, options.command or [], folder=found.guest_folder)
