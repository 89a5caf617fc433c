"""Values to JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.convert import Misfit
from sandbox_rpc.protocol.types import (
    Layer,
    Phase,
    Sandbox,
    Ssh,
    StartKind,
    Startup,
    State,
)

FULL = Sandbox(
    name="sandbox-app",
    state=State.RUNNING,
    workspace="/home/me/app",
    revision=7,
    memory_mib=2048,
    ssh=Ssh("127.0.0.1", 40022, "dev", "sandbox-app", "/c", "/k", "/i", "ssh-ed25519 A"),
    box=[Layer("namespace", True, "on")],
    startup=Startup(StartKind.COLD, [Phase("boot", 1.5)]),
    warnings=["w"],
)


def test_camel_case_outside() -> None:
    """Names are camelCase on the wire, and what holds its default is absent."""
    wire = convert.to_wire(FULL)
    assert wire["memoryMib"] == 2048
    assert wire["ssh"]["configFile"] == "/c"
    assert wire["state"] == "running"
    assert "cpus" not in wire
    assert json.loads(convert.dumps(FULL)) == wire


def test_there_and_back() -> None:
    """Nothing is lost, enums and lists of values included."""
    assert convert.from_wire(json.loads(convert.dumps(FULL)), Sandbox) == FULL


def test_paths_that_are_not_utf8_survive() -> None:
    """A folder's name is bytes; JSON must not lose them."""
    odd = Sandbox("n", State.STOPPED, b"/\xff\xfe/caf\xc3\xa9".decode("utf-8", "surrogateescape"))
    text = convert.dumps(odd)
    text.encode("ascii")
    assert convert.from_wire(json.loads(text), Sandbox) == odd


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": None}, "name"),
        ({"memoryMib": "12"}, "memory_mib"),
        ({"revision": True}, "revision"),
        ({"state": "flying"}, "state"),
        ({"ssh": {"host": "h"}}, "ssh"),
        ({"warnings": [1]}, "warnings"),
    ],
)
def test_misfits_say_where(change: dict[str, Any], problem: str) -> None:
    """No coercion: "12" is not a number, true is not 1; the field is named."""
    wire = {**convert.to_wire(FULL), **change}
    with pytest.raises(Misfit) as caught:
        convert.from_wire(wire, Sandbox)
    assert any(problem in text for text in caught.value.problems)


def test_unknown_fields_are_ignored() -> None:
    """A newer peer may say more."""
    assert convert.from_wire({**convert.to_wire(FULL), "novel": 1}, Sandbox) == FULL


@pytest.mark.parametrize("data", [None, 3, "x", [], {}])
def test_not_even_an_object(data: Any) -> None:
    """Anything else is a misfit too, not a traceback."""
    with pytest.raises(Misfit):
        convert.from_wire(data, Sandbox)
