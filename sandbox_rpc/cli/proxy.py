"""`sandbox proxy`: where a sandbox may go, and where it went."""

from __future__ import annotations

import argparse
import sys

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.network import NetworkLogEntry, NetworkRules, NetworkState
from sandbox_rpc.sandboxes import allowlist, audit
from sandbox_rpc.sandboxes.find import find

VERBS = ("allow", "block", "list", "log", "reset")
SYNONYMS = {"remove": "reset", "logs": "log", "status": "list", "ls": "list"}
"""Words that people try; the first two are the seed's."""


def expand(words: list[str]) -> list[str]:
    """`sandbox proxy` lists."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        return ["list", *words]
    return [SYNONYMS.get(words[0], words[0]), *words[1:]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `proxy`."""
    parser.epilog = "A sandbox goes through its proxy where it was started with --proxy."
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    allow = verbs.add_parser("allow", help="let it go somewhere")
    block = verbs.add_parser("block", help="never let it, whatever else allows it")
    reset = verbs.add_parser("reset", help="forget what was said of some hosts, or of all")
    listing = verbs.add_parser("list", help="show where it may go")
    log = verbs.add_parser("log", help="show where it went, and what was refused")
    about = "github.com, *.github.com (all below), .github.com (both), any with :PORT, or @LIST"
    for verb in (allow, block):
        verb.add_argument("rules", nargs="+", metavar="HOST", help=about)
        verb.add_argument("--once", action="store_true", help="only until the sandbox stops")
    reset.add_argument("rules", nargs="*", metavar="HOST", help="as it was allowed or blocked")
    listing.add_argument("--all", "-a", action="store_true", help="also what the lists contain")
    log.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    log.add_argument("--lines", "-n", type=int, default=20, metavar="N", help="of the past")
    log.add_argument("--blocked", "-b", action="store_true", help="only what was refused")
    for verb in (allow, block, reset, listing, log):
        verb.add_argument(
            "--sandbox", "-s", metavar="SANDBOX",
            help="name of a sandbox, or its folder (default: the current folder)",
        )  # fmt: skip
        add_json(verb)


def run(options: argparse.Namespace) -> int:
    """Run one of them."""
    layout = Layout.of_user()
    record = find(layout, options.sandbox).record
    match options.verb:
        case "allow":
            changed = allowlist.allow(layout, record, options.rules, once=options.once)
            _tell(changed, f"{' '.join(options.rules)}: allowed", options)
        case "block":
            changed = allowlist.block(layout, record, options.rules, once=options.once)
            _tell(changed, f"{' '.join(options.rules)}: blocked", options)
        case "reset":
            changed = allowlist.reset(layout, record, options.rules)
            _tell(changed, f"{' '.join(options.rules) or 'the allowlist'}: as at first", options)
        case "log":
            _log(layout, record, options)
        case _:
            status = allowlist.status(layout, record)
            if options.json:
                show.as_json(status)
            else:
                _describe(status, everything=options.all)
    return 0


def _tell(changed: NetworkRules, what: str, options: argparse.Namespace) -> None:
    if options.json:
        show.as_json(changed)
        return
    cut = {0: "", 1: "; one open connection was cut"}.get(
        changed.cut, f"; {changed.cut} open connections were cut"
    )
    until = " until the sandbox stops" if getattr(options, "once", False) else ""
    print(show.printable(f"{what}{until}{cut}."))
    for note in changed.notes:
        print(f"warning: {show.printable(note)}", file=sys.stderr)


def _describe(status: NetworkState, *, everything: bool) -> None:
    show.fields(
        [
            ("sandbox", status.name),
            ("network", status.mode or "does not run"),
            ("proxy", status.proxy_url),
            ("upstream", status.upstream),
            ("connections", None if status.connections is None else str(status.connections)),
            ("allowlist", status.allowlist_file),
            ("log", status.log_file),
        ]
    )
    about = {one.name: one for one in status.lists}
    print()
    for rule in status.rules:
        known = about.get(rule)
        print(show.printable(f"{rule}  ({known.about})" if known else rule))
        if known and everything:
            for one in known.rules:
                print(show.printable(f"    {one}"))
    for rule in status.once:
        print(show.printable(f"{rule}  (until the sandbox stops)"))
    for problem in status.problems:
        said = f"{problem.file}, line {problem.line}: {problem.message}"
        print(f"warning: {show.printable(said)}", file=sys.stderr)
    if status.mode not in (None, "proxy"):
        print(
            f"\nIts network is {status.mode}: this counts when it is started with --proxy.",
            file=sys.stderr,
        )


def _log(layout: Layout, record: Record, options: argparse.Namespace) -> None:
    for entry in audit.log(layout, record, limit=options.lines, only_blocked=options.blocked):
        _line(entry, options)
    if options.follow:

        async def follow() -> None:
            async for entry in audit.follow(layout, record):
                if not (options.blocked and entry.allowed):
                    _line(entry, options)
                    sys.stdout.flush()

        runner.work(follow, cancellable=False)


def _line(entry: NetworkLogEntry, options: argparse.Namespace) -> None:
    if options.json:
        show.as_json_line(entry)
        return
    verdict = "ok     " if entry.allowed and not entry.reason else entry.reason or ""
    verdict = verdict if entry.allowed else f"BLOCKED {verdict}"
    place = f"{entry.host}:{entry.port}" if entry.port else entry.host
    size = f"{entry.up} up, {entry.down} down" if entry.allowed else ""
    rule = f"by {entry.rule}" if entry.rule else ""
    words = [entry.time, f"{entry.method:7}", place, verdict.strip(), rule, size]
    print(show.printable("  ".join(filter(None, words))))
