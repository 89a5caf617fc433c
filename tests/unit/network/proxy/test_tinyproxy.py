"""An allowlist in tinyproxy's words allows no more than it does in ours."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sandbox_rpc.network.proxy.groups import parsed
from sandbox_rpc.network.proxy.rules import PORTS, Rules, parse
from sandbox_rpc.network.proxy.tinyproxy import configuration, render
from tests.unit.network.proxy.test_rules import lines, names


def passes(text: str, host: str) -> bool:
    """What tinyproxy's filter does: any expression that is found in the name."""
    return any(re.search(line, host, re.IGNORECASE) for line in text.splitlines())


@given(st.lists(lines(), max_size=5), names)
def test_it_allows_no_more(written: list[str], host: str) -> None:
    rules, _ = parse("\n".join(written))
    text, _ = render(rules, {}, PORTS)
    judge = Rules(rules, {})
    if passes(text, host):
        assert judge.judge(host, 80).allowed
        assert judge.judge(host, 443).allowed
    elif judge.judge(host, 443).allowed:
        # Less is allowed only where something could not be said.
        assert render(rules, {}, PORTS)[1]


def test_what_it_says() -> None:
    rules, _ = parse("a.example\n*.b.example\n.c.example\n^seed\\.example$\n@git\nd.example:8443")
    text, problems = render(rules, parsed(), PORTS)
    assert text.splitlines()[:4] == [
        "^a\\.example$", "\\.b\\.example$", "(^|\\.)c\\.example$", "^seed\\.example$",
    ]  # fmt: skip
    assert "^github\\.com$" in text
    assert problems == ["d.example:8443 is left out: the container knows no port of its own."]
    rules, _ = parse("*.example\n!a.example")
    assert render(rules, {}, PORTS) == ("", ["*.example is left out: !a.example is below it."])
    assert "FilterDefaultDeny Yes" in configuration([80, 8443])
    assert "ConnectPort 8443" in configuration([80, 8443])
