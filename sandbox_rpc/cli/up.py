"""`sandbox`: start if needed, then enter, or run what stands after `--`."""

from __future__ import annotations

import argparse
import os

from sandbox_rpc.cli import enter
from sandbox_rpc.cli.start import add_start_arguments, begin
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.sandboxes import find, workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same as for `start`."""
    add_start_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Run it; on success this process becomes ssh."""
    sandbox = begin(options)
    layout = Layout.of_user()
    record = names.read(layout, sandbox.name)
    folder = find.guest_folder(record, workspace.real_path(options.folder))
    os.environ.setdefault("TERM", "xterm-256color")
    return enter.become(layout, sandbox.name, options.command or [], folder=folder)
