"""`sandbox exec`: a command in a running sandbox, with its exit status."""

from __future__ import annotations

import argparse
import sys

from sandbox_rpc.cli.enter import become, running
from sandbox_rpc.cli.target import add_target
from sandbox_rpc.host.paths import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `exec`."""
    add_target(parser)
    parser.usage = "sandbox exec [OPTIONS] [SANDBOX] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("--cwd", metavar="DIR", help="folder in the guest to run it in")
    parser.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="set a variable"
    )
    parser.add_argument("--tty", "-t", action="store_true", help="give it a terminal")


def run(options: argparse.Namespace) -> int:
    """Run it; on success this process becomes ssh."""
    if not options.command:
        print("usage: sandbox exec [SANDBOX] -- COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    environment = {}
    for pair in options.env:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            print(f"sandbox exec: --env {pair}: not NAME=VALUE", file=sys.stderr)
            return 2
        environment[name] = value
    layout = Layout.of_user()
    found = running(layout, options.sandbox)
    return become(
        layout,
        found.record.name,
        options.command,
        folder=options.cwd or found.guest_folder,
        tty=options.tty,
        environment=environment,
    )
