"""The lines of an allowlist, and what they say about a host and a port. Pure.

    github.com            this name and no other
    *.github.com          every name below it, at any depth, but not the name itself
    .github.com           both
    *                     every name
    ^.*\\.github\\.com$     the seed's: a regular expression, searched for in the name
    203.0.113.7           this address; a request has to write it like this
    github.com:8443       any of these with a port: that port instead of the usual ones
    @git                  a list that we or this host bring along
    !gist.github.com      blocked, whatever else allows it; at all ports, unless one is written
    # ...                 a remark, on a line of its own

What nothing allows is refused.
"""

from __future__ import annotations

import enum
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.hostname import NoHost
from sandbox_rpc.protocol.errors import RuleInvalid

PORTS = (80, 443)
"""The usual ones."""
MAX_BYTES = 1 << 20
"""Of an allowlist."""
MAX_PATTERN = 1000
_GROUP = re.compile(r"@[a-z][a-z0-9-]*", re.ASCII)
HINT = (
    "Write a host name, *.NAME for those below it, .NAME for both, any of them with :PORT; "
    "! in front blocks it."
)


class Form(enum.StrEnum):
    """How a rule names hosts."""

    EXACT = "exact"
    BELOW = "below"
    WITHIN = "within"
    EVERY = "every"
    PATTERN = "pattern"
    GROUP = "group"


class Rule(NamedTuple):
    """One line."""

    text: str
    """In its one spelling."""
    form: Form
    host: str
    """Canonical; what a pattern or a group is called."""
    port: int | None = None
    """None: the usual ones, or all where it blocks."""
    blocks: bool = False


class Problem(NamedTuple):
    """A line that says nothing."""

    line: int
    message: str


class Decision(NamedTuple):
    """What the rules say."""

    allowed: bool
    rule: str | None
    """The line that decided; None: no line names the host."""
    reason: str = ""
    """Why not: `blocked`, `port`, `unlisted`; empty where it is allowed."""


def parse_rule(text: str) -> Rule:
    """The rule of a line.

    Raises:
        RuleInvalid: it is none.
    """
    line = text.strip()
    blocks = line.startswith("!")
    body = line[1:].strip() if blocks else line
    if "\n" in body or "\r" in body or not body.isprintable():
        raise _invalid(text, "has characters that no host has")
    if body.startswith("^"):
        return _pattern(text, body, blocks=blocks)
    if body.startswith("@"):
        if not _GROUP.fullmatch(body) or blocks:
            raise _invalid(text, "names no list")
        return Rule(body, Form.GROUP, body)
    if "/" in body:
        raise _invalid(text, "is more than a host", "Write the host alone: github.com.")
    place, port = _split_port(text, body)
    form, name = Form.EXACT, place
    if place == "*":
        form = Form.EVERY
    elif place.startswith("*."):
        form, name = Form.BELOW, place[2:]
    elif place.startswith("."):
        form, name = Form.WITHIN, place[1:]
    if form is not Form.EVERY:
        try:
            name = hostname.canonical(name)
        except NoHost as error:
            raise _invalid(text, str(error)) from None
        if form is not Form.EXACT and hostname.is_address(name):
            raise _invalid(text, "puts an address where only names have others below them")
    mark = {Form.BELOW: "*.", Form.WITHIN: "."}.get(form, "")
    shown = name if port is None and ":" not in name else _with_port(name, port)
    return Rule(f"{'!' if blocks else ''}{mark}{shown}", form, name, port, blocks)


def parse(text: str) -> tuple[list[Rule], list[Problem]]:
    """The rules of a file, and what is wrong with its other lines: these allow nothing."""
    rules: list[Rule] = []
    problems: list[Problem] = []
    for number, line in enumerate(text[:MAX_BYTES].split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            rules.append(parse_rule(line))
        except RuleInvalid as error:
            problems.append(Problem(number, error.message))
    return rules, problems


class Rules:
    """All that is allowed and blocked, ready to be asked."""

    def __init__(
        self,
        rules: Iterable[Rule],
        groups: Mapping[str, Iterable[Rule]],
        ports: Iterable[int] = PORTS,
    ) -> None:
        self._ports = frozenset(ports)
        self._allowing = _Index()
        self._blocking = _Index()
        self.size = 0
        for rule in rules:
            if rule.form is Form.GROUP:
                for one in groups.get(rule.host, ()):
                    self._add(one, f"{rule.text} {one.text}")
            else:
                self._add(rule, rule.text)

    def judge(self, host: str, port: int) -> Decision:
        """What holds for a canonical host at a port."""
        for blocking, said in self._blocking.matches(host):
            if blocking.port is None or blocking.port == port:
                return Decision(False, said, "blocked")
        elsewhere = None
        for rule, said in self._allowing.matches(host):
            if (port in self._ports) if rule.port is None else rule.port == port:
                return Decision(True, said)
            elsewhere = said
        if elsewhere is not None:
            return Decision(False, elsewhere, "port")
        return Decision(False, None, "unlisted")

    def _add(self, rule: Rule, said: str) -> None:
        self.size += 1
        (self._blocking if rule.blocks else self._allowing).add(rule, said)


class _Index:
    """Rules by the names they can match; a look-up goes once through a name's labels."""

    def __init__(self) -> None:
        self._exact: dict[str, list[tuple[Rule, str]]] = {}
        self._suffixes: dict[str, list[tuple[Rule, str]]] = {}
        self._rest: list[tuple[Rule, str, re.Pattern[str] | None]] = []

    def add(self, rule: Rule, said: str) -> None:
        match rule.form:
            case Form.EXACT | Form.WITHIN:
                self._exact.setdefault(rule.host, []).append((rule, said))
        match rule.form:
            case Form.BELOW | Form.WITHIN:
                self._suffixes.setdefault(rule.host, []).append((rule, said))
            case Form.PATTERN:
                self._rest.append((rule, said, _compiled(rule.host)))
            case Form.EVERY:
                self._rest.append((rule, said, None))

    def matches(self, host: str) -> Iterable[tuple[Rule, str]]:
        yield from self._exact.get(host, ())
        is_address = hostname.is_address(host)
        if not is_address and self._suffixes:
            suffix = host.partition(".")[2]
            while suffix:
                yield from self._suffixes.get(suffix, ())
                suffix = suffix.partition(".")[2]
        for rule, said, pattern in self._rest:
            if (not is_address) if pattern is None else pattern.search(host):
                yield rule, said


def _pattern(text: str, body: str, *, blocks: bool) -> Rule:
    if len(body) > MAX_PATTERN:
        raise _invalid(text, "is too long")
    try:
        _compiled(body)
    except (re.error, RecursionError, OverflowError) as error:
        raise _invalid(text, f"is no regular expression: {error}") from None
    return Rule(f"{'!' if blocks else ''}{body}", Form.PATTERN, body, None, blocks)


def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # What Python may read otherwise one day is not a message for whoever starts a sandbox.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern, re.IGNORECASE | re.ASCII)


def _split_port(text: str, body: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", body, re.ASCII)
    if not found:
        if ":" in body and "[" not in body and body.count(":") > 1:
            return body, None  # an IPv6 address; with a port it has brackets
        raise _invalid(text, "is no host")
    port = int(found[2]) if found[2] is not None else None
    if port is not None and not 0 < port < 65536:
        raise _invalid(text, "names a port that is none")
    return found[1], port


def _with_port(name: str, port: int | None) -> str:
    shown = f"[{name}]" if ":" in name else name
    return shown if port is None else f"{shown}:{port}"


def _invalid(text: str, problem: str, hint: str = HINT) -> RuleInvalid:
    shown = text.strip()[:100]
    return RuleInvalid(f"{shown!r} {problem}.", hint=hint, rule=shown)
