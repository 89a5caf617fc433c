"""The argument that says which sandbox is meant."""

from __future__ import annotations

import argparse


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the argument `sandbox`."""
    parser.add_argument(
        "sandbox",
        nargs="?",
        metavar="SANDBOX",
        help="name of a sandbox, or its folder (default: the current folder)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON")
