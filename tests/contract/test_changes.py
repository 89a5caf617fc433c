"""`sandbox/didChange`: what other processes change on disk reaches every client."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

from tests.contract.conftest import Fake, Serve
from tests.contract.fakes import FakeSandbox
from tests.contract.service import Service

CHANGE = "sandbox/didChange"


def settled(serve: Serve) -> Service:
    """A service that watches: an answer that came after `initialized` says so."""
    service = serve().initialize()
    service.call("sandbox/list", {})
    return service


def test_a_change_by_another_process(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    services = [settled(serve) for _ in range(2)]
    sandbox.change(state="stopping", revision=5, phase="shutdown")
    for service in services:
        value = service.news(CHANGE)
        assert value == {
            "name": "box",
            "workspace": str(sandbox.workspace),
            "state": "stopping",
            "revision": 5,
            "phase": "shutdown",
            "consoleLog": str(sandbox.room.console_log),
            "imageDigest": "sha256:" + "0" * 64,
        }


def test_a_sandbox_that_is_new(serve: Serve, fake: Fake) -> None:
    service = settled(serve)
    sandbox = fake("second")
    value = service.news(CHANGE)
    assert (value["name"], value["state"]) == ("second", "running")
    sandbox.change(state="running", revision=7, warnings=["odd"])
    assert until(service, 7)["warnings"] == ["odd"]


def test_a_sandbox_that_goes_is_stopped(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = settled(serve)
    sandbox.change(state="stopping", revision=2)
    until(service, 2)
    sandbox.end()
    shutil.rmtree(sandbox.room.folder)
    while (value := service.news(CHANGE))["state"] != "stopped":
        pass
    assert value["name"] == "box"
    assert value["workspace"] == str(sandbox.workspace)
    assert "consoleLog" not in value
    assert value["revision"] > 2


def test_revisions_grow(serve: Serve, fake: Fake) -> None:
    """Through two lives, and never the same value twice."""
    sandbox = fake()
    service = settled(serve)
    values: list[dict[str, Any]] = []
    for life in range(2):
        for phase in ("image", "disk", "qemu", "boot"):
            sandbox.change(state="starting", phase=phase, revision=10 + len(values) + life)
            while not values or values[-1].get("phase") != phase:
                values.append(service.news(CHANGE))
        shutil.rmtree(sandbox.room.folder)
        while values[-1]["state"] != "stopped":
            values.append(service.news(CHANGE))
        sandbox.room.qemu.mkdir(parents=True)
    revisions = [value["revision"] for value in values]
    assert revisions == sorted(set(revisions))
    for before, after in itertools.pairwise(values):
        assert {**before, "revision": 0} != {**after, "revision": 0}


def test_many_changes_end_with_the_newest(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = settled(serve)
    for revision in range(2, 500):
        sandbox.change(state="running", revision=revision, warnings=[str(revision)])
    assert until(service, 499)["warnings"] == ["499"]
    service.alive()
    assert [m for m in service.heard if m.get("method") == CHANGE] == []


def test_a_damaged_value_harms_nobody(serve: Serve, fake: Fake) -> None:
    one, other = fake("one"), fake("other")
    service = settled(serve)
    for text in ("", "{", "[]", "null", '{"state": 5}', '{"schema": "x"}', '{"schema": 99}'):
        one.room.state.write_text(text)
        temporary = one.room.folder / "new"
        temporary.write_text(text)
        temporary.replace(one.room.state)
    other.change(state="stopping", revision=9)
    while (value := service.news(CHANGE))["name"] != "other":
        pass
    assert value["revision"] == 9
    service.alive()


def test_nothing_is_told_before_initialized(serve: Serve, fake: Fake) -> None:
    service = serve()
    service.call("initialize", {"capabilities": {}})
    sandbox = fake()
    service.call("sandbox/list", {})
    assert service.heard == []
    service.send("initialized", {})
    service.call("sandbox/list", {})
    sandbox.change(state="stopping", revision=3)
    assert service.news(CHANGE)["revision"] == 3


def test_the_value_is_that_of_status(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = settled(serve)
    sandbox.change(state="running", revision=4, memoryMib=512)
    assert until(service, 4) == service.call("sandbox/status", {"name": "box"})
    by_folder = {"workspace": str(sandbox.workspace / ".")}
    assert service.call("sandbox/status", by_folder) == service.call(
        "sandbox/status", {"name": "box"}
    )


def until(service: Service, revision: int) -> dict[str, Any]:
    """The change that has a revision."""
    value: dict[str, Any] = {}
    while value.get("revision", 0) < revision:
        value = service.news(CHANGE)
    assert value["revision"] == revision
    return value


def test_a_fake_is_like_the_real_thing(serve: Serve, fake: Fake) -> None:
    sandbox: FakeSandbox = fake()
    service = settled(serve)
    (value,) = service.call("sandbox/list", {})
    assert value["state"] == "running"
    sandbox.end()
    assert service.call("sandbox/list", {})[0]["state"] == "lost"
