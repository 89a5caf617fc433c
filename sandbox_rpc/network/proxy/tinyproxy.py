"""An allowlist in tinyproxy's words, for the proxy in a container. Pure.

tinyproxy knows regular expressions and no exceptions to them: what cannot be said is left out, so
that less is allowed rather than more, and told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.rules import Form, Rule, Rules

PORT = 8888
"""In the container."""
FOLDER = "/allow"
"""Where it sees its files."""
FILTER, CONFIGURATION = "filter", "tinyproxy.conf"
MAX_CLIENTS = 500


def configuration(ports: Iterable[int]) -> str:
    """tinyproxy.conf. It listens on all of the container's addresses; one port is published."""
    lines = [
        f"Port {PORT}", "Listen 0.0.0.0", "Timeout 600", f"MaxClients {MAX_CLIENTS}",
        # `Info`, as the seed had it, calls fsync some five times for each request.
        "LogLevel Connect",
        f'Filter "{FOLDER}/{FILTER}"', "FilterExtended On", "FilterDefaultDeny Yes",
        "FilterCaseSensitive Off", "DisableViaHeader Yes",
        *(f"ConnectPort {port}" for port in ports),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def render(
    rules: Iterable[Rule], groups: Mapping[str, Iterable[Rule]], ports: Sequence[int]
) -> tuple[str, list[str]]:
    """The lines of its filter, and what it cannot do, as sentences."""
    allowed: dict[str, Rule] = {}
    blocked: list[Rule] = []
    problems: list[str] = []
    for rule in rules:
        members = groups.get(rule.host, ()) if rule.form is Form.GROUP else (rule,)
        for one in members:
            if one.blocks:
                blocked.append(one)
            elif one.port is not None and one.port not in ports:
                problems.append(f"{one.text} is left out: the container knows no port of its own.")
            else:
                allowed[one.text] = one
    judge = Rules(blocked, {})
    for text, rule in list(allowed.items()):
        covered = [block for block in blocked if _overlap(rule, block, judge)]
        if covered:
            # Nothing can be taken out of a regular expression.
            del allowed[text]
            problems.append(f"{text} is left out: {covered[0].text} is below it.")
    lines = dict.fromkeys(map(_expression, allowed.values()))
    return "".join(f"{line}\n" for line in lines), problems


def _overlap(rule: Rule, block: Rule, judge: Rules) -> bool:
    """Whether a rule allows something that a line blocks; in doubt it does."""
    if rule.form is Form.EXACT:
        port = rule.port if rule.port is not None else 443
        return (
            not hostname.is_address(rule.host) and judge.judge(rule.host, port).reason == "blocked"
        )
    if Form.PATTERN in (rule.form, block.form) or Form.EVERY in (rule.form, block.form):
        return True
    return (
        block.host == rule.host
        or block.host.endswith(f".{rule.host}")
        or (block.form is not Form.EXACT and rule.host.endswith(f".{block.host}"))
    )


def _expression(rule: Rule) -> str:
    name = re.escape(rule.host).replace("\\-", "-")
    match rule.form:
        case Form.PATTERN:
            return rule.host
        case Form.EVERY:
            return "."
        case Form.BELOW:
            return f"\\.{name}$"
        case Form.WITHIN:
            return f"(^|\\.){name}$"
    return f"^{name}$"
