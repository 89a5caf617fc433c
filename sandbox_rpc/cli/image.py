"""`sandbox image`: get, build, list, move and remove images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.config import flags, sources
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference, refs
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.protocol.images import Image
from sandbox_rpc.sandboxes import images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `image`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_json(made)
        return made

    pull = verb("pull", "get what a reference means in its registry now")
    pull.add_argument("ref", nargs="?", help="registry/name:tag; default: the setting image")
    flags.add_flags(pull, "image pull")
    build = verb("build", "build Debian 13 from this host's mirror")
    build.add_argument("ref", nargs="?", default=reference.BUILT, help="name to give it")
    flags.add_flags(build, "image build")
    listing = verb("list", "list images")
    listing.add_argument(
        "--check", action="store_true", help="ask the registries whether tags have moved"
    )
    importing = verb("import", "take an image from an OCI layout (folder or tar) or a qcow2 file")
    importing.add_argument("path")
    importing.add_argument("ref", nargs="?", help="name to give it; default: local/FILE")
    importing.add_argument("--name", help="which one, where a layout has several")
    exporting = verb("export", "write an image as an OCI layout")
    exporting.add_argument("ref", help="name or digest")
    exporting.add_argument("path", help="a folder to make, or a file that ends in .tar")
    push = verb("push", "put an image into a registry")
    push.add_argument("ref", help="name or digest")
    push.add_argument("to", help="registry/name:tag")
    remove = verb("remove", "remove an image that no sandbox uses")
    remove.add_argument("ref", help="name or digest")
    prune = verb("prune", "remove images without a name that nothing needs")
    prune.add_argument(
        "--all", action="store_true", help="also those with a name, unless a sandbox runs on them"
    )


def run(options: argparse.Namespace) -> int:
    """Run one of them."""
    layout = Layout.of_user()
    layout.make()
    action: Callable[[Layout, argparse.Namespace], int] = {
        "pull": _pull, "build": _build, "list": _list, "import": _import, "export": _export,
        "push": _push, "remove": _remove, "prune": _prune,
    }[options.verb]  # fmt: skip
    return action(layout, options)


def _work(options: argparse.Namespace, verb: Any, *args: object, **more: Any) -> Any:
    ticker = show.Ticker(quiet=options.json and not sys.stderr.isatty())
    try:
        return runner.work(verb, *args, report=ticker, **more)
    finally:
        ticker.clear()


def _pull(layout: Layout, options: argparse.Namespace) -> int:
    settings = sources.load(None, flags.from_namespace(options)).settings
    ref = options.ref or settings.image
    before = None
    with suppress(SandboxError):
        before = refs.read(layout, ref)
    value: Image = _work(options, images.pull, layout, ref, key=settings.pull_key)
    if options.json:
        show.as_json(value)
        return 0
    if before is None:
        print(f"{value.ref} is here: {value.digest}, {_size(value.size_bytes)}.")
    elif before.digest == value.digest:
        print(f"{value.ref} is up to date: {value.digest}.")
    else:
        print(f"{value.ref} has moved: it was {before.digest}, and is {value.digest}.")
        print("Sandboxes that run keep the old one; `sandbox image prune` removes it afterwards.")
    return 0


def _build(layout: Layout, options: argparse.Namespace) -> int:
    settings = sources.load(None, flags.from_namespace(options)).settings
    value = _work(options, images.build, layout, options.ref, source=settings.build_mirror)
    return _made(options, value, "is built")


def _import(layout: Layout, options: argparse.Namespace) -> int:
    path = os.path.abspath(options.path)
    value = _work(options, images.import_, layout, path, options.ref, name=options.name)
    return _made(options, value, "is imported")


def _made(options: argparse.Namespace, value: Image, what: str) -> int:
    if options.json:
        show.as_json(value)
    else:
        print(f"{value.ref} {what}: {value.digest}, {_size(value.size_bytes)}.")
    return 0


def _export(layout: Layout, options: argparse.Namespace) -> int:
    path = os.path.abspath(options.path)
    value = _work(options, images.export, layout, options.ref, path)
    if options.json:
        show.as_json(value)
    else:
        print(f"{options.ref} is in {path}; its manifest is {value.manifest}.")
    return 0


def _push(layout: Layout, options: argparse.Namespace) -> int:
    value = _work(options, images.push, layout, options.ref, options.to)
    if options.json:
        show.as_json(value)
    else:
        print(f"{options.to} is {options.ref} now; its manifest is {value.manifest}.")
    return 0


def _list(layout: Layout, options: argparse.Namespace) -> int:
    found: list[Image] = runner.work(images.list_, layout, check=options.check, cancellable=False)
    if options.json:
        show.as_json(found)
    elif found:
        rows: list[Sequence[str]] = [["IMAGE", "DIGEST", "SIZE", "AGE", "USED BY", ""]]
        rows += [_row(image) for image in found]
        show.table(rows)
    else:
        print(
            "There are no images; `sandbox image pull` gets one, `sandbox image build` makes one.",
            file=sys.stderr,
        )
    return 0


def _row(image: Image) -> list[str]:
    unnamed = image.ref == image.digest
    return [
        "(no name)" if unnamed else image.ref,
        image.digest[:19],
        _size(image.size_bytes),
        age(image.created_at, datetime.now(UTC)),
        ", ".join(image.in_use_by) or "-",
        "has moved: pull it" if image.newer else "",
    ]


def age(text: str, now: datetime) -> str:
    """How long ago a time was, in one word and its number."""
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return "-"
    seconds = (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
    for unit, length in (("year", 31557600), ("month", 2629800), ("day", 86400), ("hour", 3600)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "under an hour"


def _size(count: int) -> str:
    return f"{count >> 20} MiB"


def _remove(layout: Layout, options: argparse.Namespace) -> int:
    images.remove(layout, options.ref)
    if options.json:
        print(json.dumps(None))
    else:
        print(f"{options.ref} is removed.")
    return 0


def _prune(layout: Layout, options: argparse.Namespace) -> int:
    value = runner.work(images.prune, layout, all_=options.all, cancellable=False)
    if options.json:
        show.as_json(value)
    else:
        print(f"{len(value.digests)} images removed, {_size(value.freed_bytes)} freed.")
    return 0
