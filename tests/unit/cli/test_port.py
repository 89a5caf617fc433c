"""What the words of `sandbox port` mean."""

from __future__ import annotations

import pytest

from sandbox_rpc.cli import port, run
from sandbox_rpc.cli.commands import module_of
from sandbox_rpc.protocol.errors import SettingInvalid


@pytest.mark.parametrize(
    ("words", "verb", "ports", "sandbox"),
    [
        ([], "list", None, None),
        (["--json"], "list", None, None),
        (["app"], "list", None, "app"),
        (["3d-app"], "list", None, "3d-app"),
        (["."], "list", None, "."),
        (["list", "3000"], "list", None, "3000"),
        (["3000"], "add", "3000", None),
        (["--json", "3000"], "add", "3000", None),
        (["8080:3000", "app"], "add", "8080:3000", "app"),
        (["127.0.0.1:8080:3000"], "add", "127.0.0.1:8080:3000", None),
        (["add", "80", "./folder"], "add", "80", "./folder"),
        (["close", "3000", "app"], "close", "3000", "app"),
    ],
)
def test_the_verb_may_be_left_out(
    words: list[str], verb: str, ports: str | None, sandbox: str | None
) -> None:
    options = run.parser_of(module_of("port"), "port").parse_args(port.expand(words))
    assert (options.verb, getattr(options, "ports", None), options.sandbox) == (
        verb, ports, sandbox,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meant"),
    [("3000", (0, 3000)), ("8080:3000", (8080, 3000)), ("1:65535", (1, 65535))],
)
def test_ports(text: str, meant: tuple[int, int]) -> None:
    assert port.parse(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "0", "65536", "99999999999", "-1", "x", "3000/tcp", ":3000", "3000:", "0:80", "80:0", ":",
     "1:2:3", "127.0.0.1:8080:3000", "٣٠٠٠", "3 000", "1e3"],
)  # fmt: skip
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        port.parse(text)
    assert caught.value.hint
    assert caught.value.details["setting"] == "port"
