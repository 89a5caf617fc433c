"""An allowlist as text: its first content, and what allowing and blocking make of it. Pure.

A person writes this file too: remarks and order stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandbox_rpc.network.proxy.groups import GROUPS, ORDER, REGISTRIES
from sandbox_rpc.network.proxy.rules import Rule, parse_rule
from sandbox_rpc.protocol.errors import RuleInvalid

_HEAD = """\
# Where the sandbox {name} may go in `--proxy`: one rule a line, what no line allows is refused.
# A change counts from the next request on, and cuts connections that are no longer allowed.
#
#   github.com      this name              .github.com       it and all names below it
#   *.github.com    all names below it     github.com:8443   another port than 80 and 443
#   !github.com     never                  ^regex$           a regular expression
#
# An allowed host is also a way out for whatever the guest has read.

"""


def initial(name: str) -> str:
    """The allowlist of a sandbox that never had one."""
    width = max(map(len, ORDER))
    about = {group: what for group, (what, _) in GROUPS.items()}
    about[REGISTRIES] = "where this host's own apt, pip, npm, cargo and go get their packages"
    # A remark is a line of its own, so that no line means two things.
    lines = [f"# {group.ljust(width)}  {about[group]}" for group in ORDER]
    return _HEAD.format(name=name) + "\n".join([*lines, *ORDER, ""])


def allow(text: str, rules: Iterable[Rule]) -> str:
    """The text with these rules, and without lines that block the very same."""
    for rule in rules:
        text = _without(text, f"!{rule.text}")
        text = _with(text, rule.text)
    return text


def block(text: str, rules: Iterable[Rule]) -> str:
    """The text with these blocked, and without lines that allow the very same."""
    for rule in rules:
        text = _without(text, rule.text)
        text = _with(text, f"!{rule.text}")
    return text


def forget(text: str, rules: Iterable[Rule]) -> str:
    """The text without what it says of exactly these."""
    for rule in rules:
        text = _without(_without(text, rule.text), f"!{rule.text}")
    return text


def _with(text: str, line: str) -> str:
    if line in map(_spelling, text.split("\n")):
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"


def _without(text: str, line: str) -> str:
    return "\n".join(one for one in text.split("\n") if _spelling(one) != line)


def _spelling(line: str) -> str | None:
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    try:
        return parse_rule(line).text
    except RuleInvalid:
        return None
