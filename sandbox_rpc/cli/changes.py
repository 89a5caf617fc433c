"""`sandbox changes`: what was left in the workspace for this host to run."""

from __future__ import annotations

import argparse
import sys

from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json, add_target
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.workspace import Change, Changes
from sandbox_rpc.sandboxes.changes import changes
from sandbox_rpc.sandboxes.find import find

FOUND = 1
"""Exit status where something runs by itself, as diff has it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `changes`."""
    add_target(parser)
    add_json(parser)
    parser.epilog = "Exit status 1 where there is something that runs by itself."


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    found = changes(layout, find(layout, options.sandbox).record)
    if options.json:
        show.as_json(found)
    else:
        _describe(found)
    return FOUND if any(one.by_itself for one in found.changes) else 0


def _describe(found: Changes) -> None:
    if found.since is None:
        print(f"{found.name} has not been started since this version is here.")
        return
    groups = (
        ("Programs of this host run these by themselves:",
         [one for one in found.changes if one.by_itself]),
        ("These run when somebody builds, tests or installs:",
         [one for one in found.changes if not one.by_itself and not one.link]),
        ("Links that lead out of the folder:", [one for one in found.changes if one.link]),
    )  # fmt: skip
    for title, rows in groups:
        if rows:
            print(f"{title}\n")
            width = min(40, max(len(one.path) for one in rows))
            for one in rows:
                print(f"  {_line(one, width)}")
            print()
    if not found.changes:
        print(f"Nothing since {found.since} that programs of this host would run.")
    if not found.complete:
        print("warning: the folder is too large, not all of it was looked at", file=sys.stderr)


def _line(change: Change, width: int) -> str:
    return f"{show.printable(change.path).ljust(width)}  {show.printable(change.why)}"
