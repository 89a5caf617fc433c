"""Progress, and requests that are taken back; an image build is long enough for both."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Serve
from tests.contract.fakes import FakeBuild
from tests.contract.service import Message, Service


def is_of(token: object) -> Any:
    return lambda m: m.get("method") == "$/progress" and m["params"]["token"] == token


def begun(serve: Serve, fake_build: FakeBuild, token: object = "t") -> tuple[Service, int]:
    """A service with a build under way, whose program has said something."""
    service = serve(env=fake_build.environment()).initialize()
    build = service.ask("image/build", {"workDoneToken": token})
    seen: list[Message] = []
    while not seen or "Downloading" not in seen[-1]["params"]["value"]["message"]:
        seen.append(service.take(is_of(token)))
    for message in reversed(seen):
        service.heard.insert(0, message)
    return service, build


def left_nothing(base: Path, fake_build: FakeBuild) -> None:
    assert list((base / "kvm-cache" / "staging").iterdir()) == []
    assert not (base / "kvm-cache" / "refs").exists() or not any(
        (base / "kvm-cache" / "refs").rglob("*.json")
    )
    assert fake_build.was_undone


@pytest.mark.parametrize("token", ["t", 0, 17, ""], ids=repr)
def test_progress_and_cancel(
    serve: Serve, base: Path, fake_build: FakeBuild, token: object
) -> None:
    service, build = begun(serve, fake_build, token)
    service.send("$/cancelRequest", {"id": build})
    answer = service.reply(build)
    assert answer["error"]["code"] == -32800
    # By the time of the answer all is undone.
    left_nothing(base, fake_build)
    values = [message["params"]["value"] for message in service.heard]
    assert all(message["params"]["token"] == token for message in service.heard)
    kinds = [value["kind"] for value in values]
    assert kinds == ["begin", *["report"] * (len(kinds) - 2), "end"], "and the end came first"
    assert len(kinds) >= 3
    assert values[0]["title"] == "Building image"
    assert values[0]["cancellable"] is True
    for value in values[:-1]:
        assert value["phase"] == "image"
        assert value["message"]
        assert 0 <= value["percentage"] <= 100
    percentages = [value["percentage"] for value in values[:-1]]
    assert percentages == sorted(percentages)
    assert values[-1] == {"kind": "end"}
    service.heard.clear()
    service.alive()


def test_cancel_by_token(serve: Serve, base: Path, fake_build: FakeBuild) -> None:
    service, build = begun(serve, fake_build)
    service.send("window/workDoneProgress/cancel", {"token": "other"})
    service.send("window/workDoneProgress/cancel", {"token": "t"})
    assert service.reply(build)["error"]["code"] == -32800
    left_nothing(base, fake_build)


def test_a_request_without_token_says_nothing(serve: Serve, fake_build: FakeBuild) -> None:
    service = serve(env=fake_build.environment()).initialize()
    build = service.ask("image/build", {})
    # In the same breath: the cancel finds what has not begun yet.
    service.send("$/cancelRequest", {"id": build})
    assert service.reply(build)["error"]["code"] == -32800
    assert service.heard == []


def test_a_cancel_right_behind_the_request(serve: Serve, base: Path, fake_build: FakeBuild) -> None:
    service = serve(env=fake_build.environment()).initialize()
    for _ in range(5):
        build = service.ask("image/build", {"workDoneToken": "t"})
        service.send("$/cancelRequest", {"id": build})
        assert service.reply(build)["error"]["code"] == -32800
    assert list((base / "kvm-cache" / "staging").iterdir()) == []


@pytest.mark.parametrize("id_", [1, 999, "x", None, [1], {"a": 1}, 1.5, True], ids=repr)
def test_a_cancel_of_nothing(service: Service, id_: object) -> None:
    service.send("$/cancelRequest", {"id": id_})
    service.send("window/workDoneProgress/cancel", {"token": id_})
    service.alive()
    assert service.heard == []


@pytest.mark.parametrize("params", [..., None, {}, [], "x"], ids=repr)
def test_a_cancel_of_which_nobody_knows_what(service: Service, params: Any) -> None:
    service.send("$/cancelRequest", params)
    service.send("window/workDoneProgress/cancel", params)
    service.alive()
    assert service.heard == []


def test_a_second_cancel_is_harmless(serve: Serve, base: Path, fake_build: FakeBuild) -> None:
    service, build = begun(serve, fake_build)
    for _ in range(3):
        service.send("$/cancelRequest", {"id": build})
    assert service.reply(build)["error"]["code"] == -32800
    left_nothing(base, fake_build)
    service.send("$/cancelRequest", {"id": build})
    service.heard.clear()
    service.alive()
    assert service.heard == [], "one answer"


def test_others_are_served_meanwhile(serve: Serve, fake_build: FakeBuild) -> None:
    service, build = begun(serve, fake_build)
    assert service.call("sandbox/list", {}) == []
    assert service.call("image/list") == []
    service.send("$/cancelRequest", {"id": build})
    assert service.reply(build)["error"]["code"] == -32800


@pytest.mark.parametrize("how", ["end of input", "exit", "SIGTERM", "SIGINT", "deaf"])
def test_a_client_that_leaves_a_build(
    serve: Serve, base: Path, fake_build: FakeBuild, how: str
) -> None:
    """Only it wanted the image: the build is undone before the process ends."""
    service, _ = begun(serve, fake_build)
    expected = 0
    if how == "exit":
        service.send("exit")
        expected = 1
    elif how.startswith("SIG"):
        service.process.send_signal(signal.Signals[how])
    else:
        if how == "deaf":
            assert service.process.stdout is not None
            service.process.stdout.close()
        service.close_input()
    assert service.wait() == expected
    left_nothing(base, fake_build)
    assert "Traceback" not in service.errors()
