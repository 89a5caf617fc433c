"""`sandbox template`: list, build and remove the saved machines that sandboxes start from."""

from __future__ import annotations

import argparse
import json
import sys

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.config import flags
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.templates import Template
from sandbox_rpc.sandboxes import templates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `template`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_json(verbs.add_parser("list", help="list templates"))
    build = verbs.add_parser("build", help="make the one that a start with these settings takes")
    add_json(build)
    flags.add_flags(build, "template build")
    remove = verbs.add_parser("remove", help="remove templates; sandboxes that run keep theirs")
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("key", nargs="?", help="its key, or the first digits of it")
    which.add_argument("--all", action="store_true", help="remove all of them")
    add_json(remove)


def run(options: argparse.Namespace) -> int:
    """Run one of them."""
    layout = Layout.of_user()
    layout.make()
    match options.verb:
        case "build":
            return _build(layout, options)
        case "list":
            return _list(layout, options)
        case _:
            return _remove(layout, options)


def _build(layout: Layout, options: argparse.Namespace) -> int:
    ticker = show.Ticker(quiet=options.json and not sys.stderr.isatty())
    try:
        value = runner.work(templates.build, layout, flags.from_namespace(options), report=ticker)
    finally:
        ticker.clear()
    if options.json:
        show.as_json(value)
    else:
        print(f"Template {value.key[:12]} is there: {value.size_bytes >> 20} MiB.")
    return 0


def _list(layout: Layout, options: argparse.Namespace) -> int:
    found = templates.every(layout)
    if options.json:
        show.as_json(found)
    elif found:
        rows = [["TEMPLATE", "IMAGE", "MEMORY", "CPUS", "ON", "SIZE", "LAST USED"]]
        show.table([*rows, *map(_row, found)])
    else:
        print("There are no templates; the next start makes one.", file=sys.stderr)
    return 0


def _row(one: Template) -> list[str]:
    return [
        one.key[:12],
        one.image,
        f"{one.memory_mib} MiB",
        str(one.cpus),
        f"{one.accelerator}, QEMU {one.qemu}",
        f"{one.size_bytes >> 20} MiB",
        one.used_at,
    ]


def _remove(layout: Layout, options: argparse.Namespace) -> int:
    freed = templates.remove_all(layout) if options.all else templates.remove(layout, options.key)
    if options.json:
        print(json.dumps(None))
    else:
        print(f"Removed, {freed >> 20} MiB are free again.")
    return 0
