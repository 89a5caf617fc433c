"""The lines of an allowlist, against a model that is slow and obvious."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_rpc.network.proxy import allowlist, hostname
from sandbox_rpc.network.proxy.groups import GROUPS, ORDER, REGISTRIES
from sandbox_rpc.network.proxy.hostname import NoHost
from sandbox_rpc.network.proxy.rules import Form, Rules, parse, parse_rule
from sandbox_rpc.protocol.errors import RuleInvalid

labels = st.text("ab1-_", min_size=1, max_size=3).filter(lambda t: t.strip("-") == t)
names = (
    st.lists(labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: not name.rpartition(".")[2].isdigit())
)
ports = st.sampled_from([80, 443, 22, 8443])


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A valid line."""
    name = draw(names)
    shape = draw(st.sampled_from(["{}", "*.{}", ".{}", "*", "^{}$"]))
    if shape.startswith("^"):
        return draw(st.sampled_from(["", "!"])) + f"^(.*\\.)?{re.escape(name)}$"
    port = draw(st.sampled_from(["", "", ":22", ":8443"]))
    return draw(st.sampled_from(["", "", "!"])) + shape.format(name) + port


def model(line: str, host: str, port: int) -> bool:
    """Whether a line without its ! names host and port."""
    if line.startswith("^"):
        return bool(re.search(line, host)) and port in (80, 443)
    name, colon, number = line.partition(":")
    if colon:
        if int(number) != port:
            return False
    elif port not in (80, 443):
        return False
    if name == "*":
        return True
    if name.startswith("*."):
        return host.endswith(name[1:])
    if name.startswith("."):
        return host.endswith(name) or host == name[1:]
    return host == name


@given(st.lists(lines(), max_size=6), names, ports)
def test_it_decides_as_the_model_does(written: list[str], host: str, port: int) -> None:
    rules, problems = parse("\n".join(written))
    assert not problems
    decision = Rules(rules, {}).judge(host, port)
    allowed = any(model(line, host, port) for line in written if not line.startswith("!"))
    # A line that blocks without a port blocks at all ports.
    blocked = any(
        model(line[1:], host, 443 if ":" not in line or line.startswith("!^") else port)
        for line in written
        if line.startswith("!")
    )
    assert decision.allowed == (allowed and not blocked)
    if decision.allowed or decision.reason == "blocked":
        assert decision.rule in {rule.text for rule in rules}


@given(lines())
def test_a_rule_has_one_spelling(line: str) -> None:
    assert parse_rule(parse_rule(line).text) == parse_rule(line)


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_clear_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except RuleInvalid as error:
        said = error
    else:
        assert parse_rule(rule.text) == rule
        assert "\n" not in rule.text
        return
    assert said.hint
    assert "\n" not in said.message


@given(st.text(max_size=80))
def test_a_host_has_one_spelling(text: str) -> None:
    try:
        host = hostname.canonical(text)
    except NoHost:
        return
    assert hostname.canonical(host) == host
    assert host == host.lower()
    assert host.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.01", "1.2.3",
        "1.2.3.4.5", "[::1%eth0]", "::1%1", "a..b", "", ".", "a.", "..", "-a.b", "a-.b", "a b",
        "a\0b", "a%2eb", "a/b", "a@b", "a:b", "x" * 64 + ".a", "[1.2.3.4]", "[::1", "0x", "a.0x1f",
        "a.b\n",
    ],
)  # fmt: skip
def test_odd_spellings_are_no_hosts(text: str) -> None:
    if text == "a.":
        assert hostname.canonical(text) == "a"
        return
    with pytest.raises(NoHost):
        hostname.canonical(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("GitHub.COM.", "github.com"), ("[2001:DB8::0:1]", "2001:db8::1"), ("bücher.example",
        "xn--bcher-kva.example"), ("::ffff:7f00:1", "::ffff:127.0.0.1"), ("9.9.9.9", "9.9.9.9"),
        ("_dmarc.example.org", "_dmarc.example.org"), ("Ｇithub.com", "github.com"),
    ],
)  # fmt: skip
def test_hosts_in_their_one_spelling(text: str, host: str) -> None:
    # Python's own spelling of a mapped address has changed between versions.
    assert hostname.canonical(text) in (host, text)


def test_github_means_github_alone() -> None:
    rules = Rules(parse("github.com\n*.example.org\n.example.net")[0], {})
    for host, allowed in {
        "github.com": True, "api.github.com": False, "evilgithub.com": False,
        "github.com.evil.org": False, "example.org": False, "a.b.example.org": True,
        "evilexample.org": False, "example.net": True, "a.example.net": True,
        "evilexample.net": False,
    }.items():  # fmt: skip
        assert rules.judge(host, 443).allowed is allowed, host


def test_nothing_is_allowed_by_nothing() -> None:
    for text in ("", "# github.com", "!github.com", "@nothing", "github.com/x"):
        rules, _ = parse(text)
        assert not Rules(rules, {}).judge("github.com", 443).allowed


def test_an_address_is_matched_by_itself_only() -> None:
    rules = Rules(parse("*\n.9.example\n203.0.113.7:8080\n[2001:db8::7]")[0], {})
    assert not rules.judge("203.0.113.7", 80).allowed
    assert rules.judge("203.0.113.7", 8080).allowed
    assert rules.judge("2001:db8::7", 443).allowed
    assert not rules.judge("2001:db8::8", 443).allowed
    assert rules.judge("x.9.example", 443).allowed


def test_ports() -> None:
    rules = Rules(parse("a.example\nb.example:22\n!c.example:22\nc.example:22\nc.example")[0], {})
    assert rules.judge("a.example", 443).allowed
    assert rules.judge("a.example", 22) == (False, "a.example", "port")
    assert rules.judge("b.example", 22).allowed
    assert rules.judge("b.example", 443).reason == "port"
    assert rules.judge("c.example", 22) == (False, "!c.example:22", "blocked")
    assert rules.judge("c.example", 80).allowed
    assert Rules(parse("a.example")[0], {}, ports=[8080]).judge("a.example", 8080).allowed


def test_a_bad_line_allows_nothing_and_is_told() -> None:
    rules, problems = parse("github.com\nhttps://a.example/x\n\n^(\n!@git\na b\n")
    assert [rule.text for rule in rules] == ["github.com"]
    assert [problem.line for problem in problems] == [2, 4, 5, 6]


def test_the_lists_we_bring_along() -> None:
    groups = {name: [parse_rule(one) for one in text.split()] for name, (_, text) in GROUPS.items()}
    for name, rules in groups.items():
        assert rules, name
        assert not any(rule.blocks or rule.form in (Form.EVERY, Form.GROUP) for rule in rules)
        assert len({rule.text for rule in rules}) == len(rules)
    text = allowlist.initial("sandbox-app")
    rules, problems = parse(text)
    assert not problems
    assert [rule.text for rule in rules] == [*ORDER]
    registry = parse_rule("packages.example:8081")
    ready = Rules(rules, {**groups, REGISTRIES: [registry]})
    assert ready.judge("github.com", 443).rule == "@git github.com"
    assert ready.judge("packages.example", 8081).allowed
    assert not ready.judge("packages.example", 443).allowed
    assert not ready.judge("example.org", 443).allowed


def test_editing_keeps_what_a_person_wrote() -> None:
    text = "# mine\ngithub.com\n\n  Example.ORG  \n# end"
    rule = parse_rule("example.org")
    blocked = allowlist.block(text, [rule])
    assert blocked == "# mine\ngithub.com\n\n# end\n!example.org\n"
    assert allowlist.block(blocked, [rule]) == blocked
    assert allowlist.allow(blocked, [rule]) == "# mine\ngithub.com\n\n# end\nexample.org\n"
    assert allowlist.forget(blocked, [rule]) == "# mine\ngithub.com\n\n# end\n"
    assert allowlist.allow("", [rule]) == "example.org\n"


@given(st.lists(lines(), max_size=5), lines())
def test_allowing_and_blocking_undo_each_other(written: list[str], line: str) -> None:
    rule = parse_rule(line.lstrip("!"))
    text = "".join(f"{one}\n" for one in written)
    allowed = allowlist.allow(text, [rule])
    assert rule.text in [one.text for one in parse(allowed)[0]]
    blocked = allowlist.block(allowed, [rule])
    assert rule.text not in [one.text for one in parse(blocked)[0]]
    assert allowlist.forget(blocked, [rule]) == allowlist.forget(text, [rule])
