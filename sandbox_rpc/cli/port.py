"""`sandbox port`: ports of this host that lead into a running sandbox."""

from __future__ import annotations

import argparse
import re

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json, add_target
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.network.port import check
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.protocol.types import Forward
from sandbox_rpc.sandboxes import ports
from sandbox_rpc.sandboxes.find import find

VERBS = ("add", "close", "list")
HINT = "Write the guest's port, 3000, or the host's and the guest's, 8080:3000."


def expand(words: list[str]) -> list[str]:
    """`sandbox port 3000` adds, `sandbox port` and `sandbox port app` list."""
    if words and words[0] in (*VERBS, "-h", "--help"):
        return words
    adds = any(re.fullmatch(r"[0-9.:]*[0-9][0-9.:]*", word) for word in words)
    return ["add" if adds else "list", *words]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `port`."""
    parser.epilog = "`sandbox port 3000` is short for `sandbox port add 3000`."
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("add", help="let a port of this host lead into the guest")
    add.add_argument(
        "ports",
        metavar="[HOST:]GUEST",
        help="port in the guest; before it the one on this host (default: the same, else any)",
    )
    close = verbs.add_parser("close", help="close one again")
    close.add_argument("ports", metavar="PORT", help="port on this host, or the guest's")
    listing = verbs.add_parser("list", help="list them")
    for verb in (add, close, listing):
        add_target(verb)
        add_json(verb)


def run(options: argparse.Namespace) -> int:
    """Run one of them."""
    layout = Layout.of_user()
    match options.verb:
        case "add":
            host_port, guest_port = parse(options.ports)
            record = find(layout, options.sandbox).record
            opened = runner.work(
                ports.forward, layout, record, guest_port, host_port, cancellable=False
            )
            _tell(opened, f"leads to port {opened.guest_port} of {record.name}", options)
        case "close":
            host_port, guest_port = parse(options.ports)
            record = find(layout, options.sandbox).record
            chosen = host_port or _choose(layout, record, guest_port)
            closed = runner.work(ports.close, layout, record, chosen, cancellable=False)
            _tell(closed, "is closed", options)
        case _:
            _list(layout, find(layout, options.sandbox).record, options)
    return 0


def parse(text: str) -> tuple[int, int]:
    """`3000` or `8080:3000` as port of the host, 0 where none is named, and port of the guest.

    Raises:
        SettingInvalid: it is neither.
    """
    host, colon, guest = text.rpartition(":")
    numbers = [host, guest] if colon else [guest]
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in numbers):
        raise SettingInvalid(f"{text!r} is no port.", hint=HINT, setting="port")
    host_port, guest_port = int(host or 0), int(guest)
    check(guest_port, "port")
    if colon:
        check(host_port, "port")
    return host_port, guest_port


def _choose(layout: Layout, record: Record, port: int) -> int:
    """The host's port that is meant by a number; where none has it, that of the guest's port."""
    known = runner.work(ports.running, layout, record, cancellable=False).forwards
    if any(one.host_port == port for one in known):
        return port
    return next((one.host_port for one in known if one.guest_port == port), port)


def _tell(forward: Forward, what: str, options: argparse.Namespace) -> None:
    if options.json:
        show.as_json(forward)
    else:
        print(f"{forward.host}:{forward.host_port} {what}.")


def _list(layout: Layout, record: Record, options: argparse.Namespace) -> None:
    known = runner.work(ports.running, layout, record, cancellable=False).forwards
    if options.json:
        show.as_json(known)
    elif known:
        rows = [["THIS HOST", "GUEST"]]
        rows += [[f"{one.host}:{one.host_port}", str(one.guest_port)] for one in known]
        show.table(rows)
    else:
        print(f"No port leads to {record.name}; `sandbox port 3000` opens one.")
