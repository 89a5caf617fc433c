"""`sandbox connect NAME`: the ProxyCommand of a stopped sandbox's alias."""

from __future__ import annotations

import argparse

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.sandboxes.connect import connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `connect`."""
    parser.add_argument("name")


def run(options: argparse.Namespace) -> int:
    """Run it; ssh shows stderr, so progress is seen where the user waits."""
    ticker = show.Ticker()
    runner.work(connect, Layout.of_user(), options.name, report=ticker, cancellable=False)
    return 0
