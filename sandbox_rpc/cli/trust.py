"""`sandbox trust`: accept what a folder's sandbox.toml says, as it is now."""

from __future__ import annotations

import argparse
import sys

from sandbox_rpc.config import trust
from sandbox_rpc.config.setting import written
from sandbox_rpc.sandboxes import workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `trust`."""
    parser.add_argument("folder", nargs="?", default=".", help="folder (default: this)")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--revoke", action="store_true", help="take it back")


def run(options: argparse.Namespace) -> int:
    """Show what is accepted, ask, and remember the file's content."""
    folder = workspace.real_path(options.folder)
    if options.revoke:
        was = trust.distrust(folder)
        print(f"{folder} is no longer trusted." if was else f"{folder} was not trusted.")
        return 0
    reviewed = trust.review(folder)
    print(f"{reviewed.file} asks for:")
    for key, value in reviewed.values.items():
        print(f"  {key} = {written(value)}")
    for key in (*reviewed.refused, *reviewed.unknown):
        print(f"  {key}: ignored, no folder may set it")
    if not options.yes:
        if not sys.stdin.isatty():
            print("error: nobody is there to ask; --yes accepts it", file=sys.stderr)
            return 2
        if input("Accept? The guest can write this file. [y/N] ").strip().lower() not in {
            "y",
            "yes",
        }:
            print("Not accepted.")
            return 1
    # By the content that was shown: a change in between is not accepted along with it.
    trust.trust(folder, sha256=reviewed.sha256)
    print("Accepted until the file changes.")
    return 0
