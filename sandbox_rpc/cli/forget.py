"""`sandbox forget`."""

from __future__ import annotations

import argparse

from sandbox_rpc.cli.target import add_target
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.sandboxes.find import find
from sandbox_rpc.supervisor import alias
from sandbox_rpc.supervisor.request import Place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `forget`."""
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    name = find(layout, options.sandbox).record.name
    names.forget(layout, name)
    alias.remove(Place(layout, name))
    print(f"{name} is forgotten.")
    return 0
