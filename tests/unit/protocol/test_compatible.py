"""Which changes of the protocol break the peers of a released one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.compatible import breaks, main, senders
from protocol.metamodel import source_model

RELEASED = Path(__file__).resolve().parents[3] / "protocol/released"
TEXT = {"kind": "base", "name": "string"}
NUMBER = {"kind": "base", "name": "integer"}
Change = Callable[[dict[str, Any]], object]


def reference(name: str) -> dict[str, Any]:
    """A type that refers to a structure."""
    return {"kind": "reference", "name": name}


def one(name: str, form: dict[str, Any] = TEXT, **more: Any) -> dict[str, Any]:
    """A field."""
    return {"name": name, "type": form, "since": "1.0", **more}


def method(name: str, way: str = "clientToServer", **more: Any) -> dict[str, Any]:
    """A request or a notification."""
    return {"method": name, "messageDirection": way, "since": "1.0", **more}


OLD: dict[str, Any] = {
    "metaData": {"version": "1.0"},
    "requests": [
        method("a/ask", params=reference("Asked"), result=reference("Answer")),
        method("a/list", result={"kind": "base", "name": "null"}),
    ],
    "notifications": [method("a/told", "serverToClient", params=reference("Both"))],
    "structures": [
        {"name": "Asked", "properties": [one("name"), one("more", optional=True)]},
        {"name": "Answer", "properties": [one("name"), one("more", optional=True)]},
        {"name": "Both", "properties": [one("name"), one("inner", reference("Answer"))]},
        {"name": "New", "properties": [one("name")]},
    ],
    "enumerations": [
        {
            "name": "Code", "type": NUMBER,
            "values": [{"name": "Lost", "value": 1}, {"name": "Gone", "value": 2}],
        }
    ],
    "typeAliases": [{"name": "Large", "type": NUMBER}],
}  # fmt: skip


def structure(model: dict[str, Any], name: str) -> Any:
    """A structure's properties."""
    return next(s for s in model["structures"] if s["name"] == name)["properties"]


def new(change: Change, version: str = "1.1") -> dict[str, Any]:
    """The old model, changed."""
    model = copy.deepcopy(OLD)
    model["metaData"]["version"] = version
    change(model)
    return model


LATER = {"since": "1.1"}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: None,
        lambda m: m["requests"].append(method("a/new", result=TEXT) | LATER),
        lambda m: m["notifications"].append(method("a/news") | LATER),
        lambda m: structure(m, "Asked").append(one("extra", optional=True) | LATER),
        lambda m: structure(m, "Answer").append(one("extra", optional=True) | LATER),
        lambda m: structure(m, "Answer").append(one("extra") | LATER),
        lambda m: m["enumerations"][0]["values"].append({"name": "X", "value": 3} | LATER),
        lambda m: structure(m, "Asked")[0].update(optional=True),
        lambda m: structure(m, "Answer")[1].pop("optional"),
        lambda m: structure(m, "Asked")[0].update(type={"kind": "or", "items": [NUMBER, TEXT]}),
        lambda m: m["structures"].append({"name": "Later", "properties": [one("a")]}),
        lambda m: m["requests"][0].update(documentation="Other words."),
    ],
)
def test_a_minor_version_may_add(change: Change) -> None:
    assert breaks(OLD, new(change)) == []


BREAKS: list[tuple[Change, str]] = [
    (lambda m: m["requests"].pop(0), "a/ask: the request was removed"),
    (lambda m: m["notifications"].clear(), "a/told: the notification was removed"),
    (
        lambda m: m["notifications"][0].update(messageDirection="clientToServer"),
        "a/told: its direction changed",
    ),
    (lambda m: m["requests"][0].update(result=TEXT), "a/ask: its result changed from"),
    (lambda m: m["requests"][0].pop("params"), "a/ask: its params were removed"),
    (
        lambda m: m["requests"][0].update(params=reference("New")),
        "a/ask: the type of its params changed",
    ),
    (
        lambda m: m["requests"][1].update(params=reference("New")),
        "a/list: it now requires params",
    ),
    (lambda m: m["structures"].pop(), "New: the structure was removed"),
    (lambda m: structure(m, "Asked").pop(), "Asked.more: the field was removed"),
    (lambda m: structure(m, "Answer").pop(), "Answer.more: the field was removed"),
    (
        lambda m: structure(m, "Asked")[1].pop("optional"),
        "Asked.more: a client must send it now",
    ),
    (
        lambda m: structure(m, "Answer")[0].update(optional=True),
        "Answer.name: a server may leave it out now",
    ),
    (
        lambda m: structure(m, "Asked").append(one("extra") | LATER),
        "Asked.extra: a new field that a client must send",
    ),
    (lambda m: structure(m, "Asked")[0].update(type=NUMBER), "Asked.name: its type changed"),
    (
        lambda m: structure(m, "Answer")[0].update(type={"kind": "or", "items": [NUMBER, TEXT]}),
        "Answer.name: its type changed",
    ),
    (lambda m: m["enumerations"].clear(), "Code: the enumeration was removed"),
    (lambda m: m["enumerations"][0].update(type=TEXT), "Code: its type changed"),
    (lambda m: m["enumerations"][0]["values"].pop(), "Code.Gone: the value was removed"),
    (
        lambda m: m["enumerations"][0]["values"][1].update(value=7),
        "Code.Gone: it was 2 and is 7",
    ),
    (
        lambda m: m["enumerations"][0]["values"].append({"name": "X", "value": 2} | LATER),
        "Code.X: 2 meant Gone",
    ),
    (lambda m: m["typeAliases"].clear(), "Large: the alias was removed"),
    (lambda m: m["typeAliases"][0].update(type=TEXT), "Large: its type changed"),
    (
        lambda m: m["requests"].append(method("a/new", result=TEXT)),
        "a/new: added with since 1.0, and 1.0 is released without it",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), BREAKS, ids=[text for _, text in BREAKS])
def test_a_minor_version_may_not(change: Change, sentence: str) -> None:
    [found] = breaks(OLD, new(change))
    assert found.startswith(sentence)


def test_a_major_version_may_do_all() -> None:
    for change, _ in BREAKS:
        assert breaks(OLD, new(change, "2.0")) == []


def test_an_addition_needs_a_new_version() -> None:
    added = new(lambda m: m["requests"].append(method("a/new", result=TEXT)), "1.0")
    assert breaks(OLD, added) == ["a/new: added, and the version is still 1.0; raise the minor one"]
    assert breaks(new(lambda m: None), OLD) == ["the version went back from 1.1 to 1.0"]


def test_who_sends_what() -> None:
    sent = senders(OLD)
    assert sent["Asked"] == {"clientToServer"}
    assert sent["Both"] == sent["Answer"] == {"serverToClient"}


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, good, bad = (tmp_path / name for name in ("old", "good", "bad"))
    old.write_text(json.dumps(OLD))
    good.write_text(json.dumps(new(lambda m: None)))
    bad.write_text(json.dumps(new(BREAKS[0][0])))
    assert main([str(old), str(good)]) == 0
    assert capsys.readouterr().out == ""
    assert main([str(old), str(bad)]) == 1
    said = capsys.readouterr()
    assert "a/ask: the request was removed" in said.out
    assert "raise the major version" in said.err


def newest_release() -> dict[str, Any] | None:
    """The model of the last release, where there was one."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(map(int, path.stem.removeprefix("metaModel-").split(".")))

    files = sorted(RELEASED.glob("metaModel-*.json"), key=version)
    return json.loads(files[-1].read_text()) if files else None


def test_todays_protocol_is_compatible_with_the_newest_release() -> None:
    today = source_model()
    released = newest_release() or today
    assert breaks(released, today) == []
    # With no release to compare with, this still says something of the checker.
    planted = copy.deepcopy(today)
    planted["requests"] = [r for r in planted["requests"] if r["method"] != "sandbox/start"]
    assert "sandbox/start: the request was removed" in breaks(released, planted)
