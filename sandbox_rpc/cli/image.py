"""`sandbox image`: build, list and remove images."""

from __future__ import annotations

import argparse
import json
import sys

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.config import flags, sources
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import store
from sandbox_rpc.protocol.types import Image
from sandbox_rpc.sandboxes import images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `image`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    build = verbs.add_parser("build", help="build Debian 13 from this host's mirror")
    build.add_argument("ref", nargs="?", default=store.DEFAULT_REF, help="name to give it")
    add_json(build)
    flags.add_flags(build, "image build")
    listing = verbs.add_parser("list", help="list images")
    add_json(listing)
    remove = verbs.add_parser("remove", help="remove an image that no sandbox uses")
    remove.add_argument("ref", help="name or digest")
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
        settings = sources.load(None, flags.from_namespace(options)).settings
        value = runner.work(
            images.build, layout, options.ref, source=settings.build_mirror, report=ticker
        )
    finally:
        ticker.clear()
    if options.json:
        show.as_json(value)
    else:
        print(f"{value.ref} is built: {value.digest}, {value.size_bytes >> 20} MiB.")
    return 0


def _list(layout: Layout, options: argparse.Namespace) -> int:
    found = images.every(layout)
    if options.json:
        show.as_json(found)
    elif found:
        rows = [["IMAGE", "DIGEST", "SIZE", "CREATED", "USED BY"]]
        rows += [_row(image) for image in found]
        show.table(rows)
    else:
        print("There are no images; `sandbox image build` makes one.", file=sys.stderr)
    return 0


def _row(image: Image) -> list[str]:
    return [
        image.ref,
        image.digest[:19],
        f"{image.size_bytes >> 20} MiB",
        image.created_at,
        ", ".join(image.in_use_by) or "-",
    ]


def _remove(layout: Layout, options: argparse.Namespace) -> int:
    images.remove(layout, options.ref)
    if options.json:
        print(json.dumps(None))
    else:
        print(f"{options.ref} is removed.")
    return 0
