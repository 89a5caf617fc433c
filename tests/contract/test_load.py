"""Much at once."""

from __future__ import annotations

import os
import select

from tests.contract.conftest import Serve
from tests.contract.service import Message, frame


def test_16_mib_of_params(serve: Serve) -> None:
    service = serve().initialize()
    text = "x" * (16 << 20)
    assert service.call("sandbox/list", {"text": text}) == []
    assert service.fail("sandbox/status", {"name": text})["data"]["kind"] == "nameInvalid"
    error = service.fail("sandbox/status", {"workspace": "/" + text})
    assert error["data"]["kind"] == "workspaceRefused"
    assert len(str(error["message"])) < 10_000


def test_10_000_requests_in_flight(serve: Serve) -> None:
    service = serve().initialize()
    count = 10_000
    # None is read until all are sent.
    service.write(
        b"".join(
            frame({"jsonrpc": "2.0", "id": id_, "method": method, "params": {"name": "nobody"}})
            for id_ in range(count)
            for method in [("sandbox/status", "sandbox/list", "nobody/there")[id_ % 3]]
        )
    )
    answers: dict[int, Message] = {}
    while len(answers) < count:
        service.read(60)
        for message in service.heard:
            assert message["id"] not in answers, "answered twice"
            answers[message["id"]] = message
        service.heard.clear()
    assert set(answers) == set(range(count))
    for id_, answer in answers.items():
        assert answer.get("error", {}).get("code") == (1101, None, -32601)[id_ % 3]
    service.alive()
    assert service.leave() == 0


def test_answers_that_nobody_reads_are_bounded(serve: Serve) -> None:
    """A client that only writes is made to wait instead of filling our memory."""
    service = serve().initialize()
    before = service.status_mib("VmHWM")
    assert service.process.stdin is not None
    stdin = service.process.stdin.fileno()
    os.set_blocking(stdin, False)
    request = frame({"jsonrpc": "2.0", "id": 1, "method": "x" * 1_000_000})
    sent, rest = 0, b""
    while sent < 200 << 20:
        _, ready, _ = select.select([], [stdin], [], 3)
        if not ready:
            break
        rest = rest or request
        written = os.write(stdin, rest)
        sent += written
        rest = rest[written:]
    else:
        raise AssertionError("it has taken 200 MiB of requests whose answers nobody reads")
    assert sent > 60 << 20
    assert service.status_mib("VmHWM") - before < 150
