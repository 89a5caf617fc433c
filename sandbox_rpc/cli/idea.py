"""`sandbox idea`: the folder in JetBrains Gateway, which Toolbox brings along."""

from __future__ import annotations

import argparse
import urllib.parse

from sandbox_rpc.cli import window
from sandbox_rpc.cli.start import add_start_arguments

PRODUCTS = ("IU", "IC", "PY", "PC", "GO", "WS", "CL", "RM", "PS", "RD", "RR")
"""JetBrains' short names of its editors."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same as for `start`, and which product."""
    add_start_arguments(parser)
    parser.add_argument(
        "--product", choices=PRODUCTS, default="IU",
        help="which of the editors, by JetBrains' short name (default: IU, IntelliJ IDEA)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run it."""
    place = window.prepare(options)
    return window.open_url(url(place.alias, place.folder, options.product))


def url(alias: str, folder: str, product: str) -> str:
    """What Gateway and Toolbox understand."""
    query = urllib.parse.urlencode(
        {"h": alias, "launchIde": "true", "ideHint": product, "projectHint": folder}
    )
    return f"jetbrains://gateway/ssh/environment?{query}"
