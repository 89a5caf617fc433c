"""A sandbox's allowlist: show it, allow, block, reset; whether its machine runs or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sandbox_rpc.config.choices import Network
from sandbox_rpc.host import files, locks
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout, ProxyHome, Room
from sandbox_rpc.network.proxy import allowlist as text
from sandbox_rpc.network.proxy.groups import GROUPS, REGISTRIES
from sandbox_rpc.network.proxy.journal import ACCESS, BLOCKED
from sandbox_rpc.network.proxy.rules import Form, Problem, Rule, Rules, parse, parse_rule
from sandbox_rpc.protocol.errors import RuleInvalid, SandboxError
from sandbox_rpc.protocol.network import (
    Blocked,
    NetworkList,
    NetworkRules,
    NetworkState,
    RuleProblem,
)
from sandbox_rpc.supervisor import proxy, state
from sandbox_rpc.supervisor.supply import PROXY_URL

MAX_RULES = 1000
"""In one request."""


def status(layout: Layout, record: Record) -> NetworkState:
    """The allowlist, and what its proxy says where one runs."""
    home, room = layout.proxy(record.name), layout.room(record.name)
    with suppress(SandboxError):
        proxy.make_home(home, record.name)
    sandbox = state.load(room)
    mode = sandbox.network if sandbox is not None else None
    said: dict[str, object] = {}
    if mode == Network.PROXY:
        with suppress(SandboxError):
            said = proxy.ask(room, "status")
    kept, problems = _read(home.allowlist)
    once, more = _read(home.once)
    used = {rule.host for rule in (*kept, *once) if rule.form is Form.GROUP}
    registries = said.get("registries")
    lists = [NetworkList(name, about, name in used, lines.split())
             for name, (about, lines) in GROUPS.items()]  # fmt: skip
    lists.append(
        NetworkList(
            REGISTRIES,
            "where this host's own tools get packages, as of the start",
            REGISTRIES in used,
            [str(one) for one in registries] if isinstance(registries, list) else [],
        )
    )
    return NetworkState(
        name=record.name,
        mode=mode,
        proxy_url=PROXY_URL if mode == Network.PROXY else None,
        rules=[rule.text for rule in kept],
        once=[rule.text for rule in once],
        lists=lists,
        problems=[*_told(home.allowlist, problems), *_told(home.once, more)],
        connections=_number(said.get("connections")),
        served=_number(said.get("served")),
        upstream=str(said["upstream"]) if said.get("upstream") else None,
        blocked=blocked(home, record.name),
        allowlist_file=str(home.allowlist),
        log_file=str(home.journal / ACCESS),
    )


def allow(
    layout: Layout, record: Record, rules: Sequence[str], *, once: bool = False
) -> NetworkRules:
    """Allow what these rules name, from the next request on.

    Raises:
        RuleInvalid: one of them is no rule; then nothing has changed.
        PermissionDenied, DiskFull: it cannot be kept.
    """
    return _change(layout, record, _parsed(rules), text.allow, text.forget, once=once)


def block(
    layout: Layout, record: Record, rules: Sequence[str], *, once: bool = False
) -> NetworkRules:
    """Block what they name, whatever else allows it; open connections to it are cut.

    Raises:
        As `allow`.
    """
    return _change(layout, record, _parsed(rules), text.block, text.forget, once=once)


def reset(layout: Layout, record: Record, rules: Sequence[str] = ()) -> NetworkRules:
    """Forget what was said of these rules; without rules, all of it.

    Raises:
        As `allow`.
    """
    if rules:
        return _change(layout, record, _parsed(rules), text.forget, text.forget, once=False)
    return _change(layout, record, [], lambda *_: text.initial(record.name), _nothing, once=False)


def blocked(home: ProxyHome, name: str) -> list[Blocked]:
    """What was refused lately, the latest last."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        events = json.loads((home.journal / BLOCKED).read_bytes())["events"]
        return [
            Blocked(
                name=name, host=str(one["host"]), port=int(one["port"]), reason=str(one["reason"]),
                method=str(one["method"]), time=str(one["time"]), count=int(one["count"]),
                sequence=int(one["sequence"]), rule=one["rule"] and str(one["rule"]),
            )
            for one in events
        ]  # fmt: skip
    return []


Edit = Callable[[str, Iterable[Rule]], str]


def _change(
    layout: Layout, record: Record, rules: Sequence[Rule], kept: Edit, once_: Edit, *, once: bool
) -> NetworkRules:
    home, room = layout.proxy(record.name), layout.room(record.name)
    proxy.make_home(home, record.name)
    # Its own watch may be quicker than our question: so what counts is the difference.
    before = _reload(room)
    with locks.held(home.lock):
        if once:
            # For good a line may stay as it is: what is said until the end comes on top.
            _write(home.once, kept(_text(home.once), rules))
        else:
            _write(home.allowlist, kept(_text(home.allowlist), rules))
            if home.once.exists():
                _write(home.once, once_(_text(home.once), rules))
    # Else it would hear of it a moment later; this way it has by the time that we answer.
    cut = max(0, _reload(room) - before)
    now, _ = _read(home.allowlist)
    until_end, _ = _read(home.once)
    return NetworkRules(
        rules=[rule.text for rule in now],
        once=[rule.text for rule in until_end],
        cut=cut,
        notes=_notes(rules, [*now, *until_end], kept),
    )


def _reload(room: Room) -> int:
    """Let a proxy that runs read the allowlist; how many connections it has ever cut."""
    with suppress(SandboxError):
        return int(proxy.ask(room, "reload")["cut"])
    return 0


def _notes(rules: Sequence[Rule], now: Sequence[Rule], edit: Edit) -> list[str]:
    """What another line makes of what was just said."""
    if edit is not text.allow:
        return []
    groups = {
        name: [parse_rule(one) for one in lines.split()] for name, (_, lines) in GROUPS.items()
    }
    ready = Rules(now, groups)
    notes = []
    for rule in rules:
        if rule.form is not Form.EXACT:
            continue
        decision = ready.judge(rule.host, 443 if rule.port is None else rule.port)
        if not decision.allowed and decision.rule:
            notes.append(f"{rule.text} stays blocked by the line {decision.rule}.")
    return notes


def _nothing(_: str, __: Iterable[Rule]) -> str:
    return ""


def _parsed(rules: Sequence[str]) -> list[Rule]:
    if not rules or len(rules) > MAX_RULES:
        raise RuleInvalid(f"Between 1 and {MAX_RULES} rules can be given.")
    found = [parse_rule(rule) for rule in rules]
    for rule in found:
        if rule.blocks:
            raise RuleInvalid(
                f"{rule.text!r} has the mark of a blocked one.",
                hint=f"To block it: sandbox proxy block {rule.text[1:]}",
                rule=rule.text,
            )
        if rule.form is Form.GROUP and rule.host not in (*GROUPS, REGISTRIES):
            known = ", ".join((*GROUPS, REGISTRIES))
            raise RuleInvalid(
                f"There is no list {rule.text}.", hint=f"There are {known}.", rule=rule.text
            )
    return found


def _read(path: Path) -> tuple[list[Rule], list[Problem]]:
    return parse(_text(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _write(path: Path, content: str) -> None:
    if content != _text(path):
        files.replace(path, content)


def _told(path: Path, problems: Iterable[Problem]) -> list[RuleProblem]:
    return [RuleProblem(path.name, problem.line, problem.message) for problem in problems]


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
