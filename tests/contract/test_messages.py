"""Messages that are none, and those that are odd: an answer or a clean end, never silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.conftest import Serve
from tests.contract.fakes import FakeBuild
from tests.contract.service import Service, frame

LIST: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": "sandbox/list", "params": {}}


def body(**more: Any) -> bytes:
    return json.dumps({**LIST, **more}).encode()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff\xfe\x00", -32700),
        (b"\xc3\x28", -32700),
        (b"nonsense", -32700),
        (b"[" * 200_000, -32700),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, -32700),
        (b"9" * 5000, -32700),
        (b"[]", -32600),
        (json.dumps([LIST, LIST]).encode(), -32600),
        (b"5", -32600),
        (b'"text"', -32600),
        (b"null", -32600),
        (b"{}", -32600),
        (b'{"id":77,"method":"sandbox/list"}', -32600),
        (b'{"jsonrpc":"1.0","id":77,"method":"sandbox/list"}', -32600),
        (b'{"jsonrpc":2.0,"id":77,"method":"sandbox/list"}', -32600),
        (b'{"jsonrpc":"2.0"}', -32600),
        (b'{"jsonrpc":"2.0","id":4}', -32600),
        (b'{"jsonrpc":"2.0","method":5}', -32600),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_no_message(service: Service, text: bytes, code: int) -> None:
    """It is told with `id: null`, and the next one is served."""
    service.write(frame(text))
    error = service.reply(None)["error"]
    assert error["code"] == code
    assert "Traceback" not in json.dumps(error)
    service.alive()


@pytest.mark.parametrize("method", [5, None, [], {}, True])
def test_a_method_that_is_no_string(service: Service, method: object) -> None:
    service.write(frame(body(method=method)))
    assert service.reply(7)["error"]["code"] == -32600
    service.alive()


@pytest.mark.parametrize("id_", [None, True, 1.5, [], {}, [1], {"a": 1}], ids=repr)
def test_an_id_that_is_none(service: Service, id_: object) -> None:
    service.write(frame(body(id=id_)))
    assert service.reply(id_)["error"]["code"] == -32600
    service.alive()


@pytest.mark.parametrize(
    "id_", [0, -1, 2**53, 2**80, "", "7", "x" * 100_000, "\ud800", "\u0000é𝄞"], ids=repr
)
def test_an_id_comes_back_as_it_went(service: Service, id_: object) -> None:
    service.write(frame(body(id=id_)))
    assert service.reply(id_)["result"] == []


def test_a_number_and_its_text_are_two_ids(service: Service) -> None:
    service.write(frame(body(id=7)) + frame(body(id="7")))
    assert service.reply(7)["result"] == []
    assert service.reply("7")["result"] == []


def test_an_id_in_use_is_refused(serve: Serve, fake_build: FakeBuild) -> None:
    service = serve(env=fake_build.environment()).initialize()
    # In one breath: the second is looked at before anything has been done for the first.
    build = {"jsonrpc": "2.0", "id": 7, "method": "image/build", "params": {}}
    service.write(frame(build) + frame(body()))
    assert "under way" in service.reply(7)["error"]["message"]
    service.send("$/cancelRequest", {"id": 7})
    assert service.reply(7)["error"]["code"] == -32800
    service.write(frame(body()))
    assert service.reply(7)["result"] == []


def test_an_unknown_method(service: Service) -> None:
    error = service.fail("nobody/there", {"x": 1})
    assert error["code"] == -32601
    assert "nobody/there" in error["message"]
    assert service.fail("nobody/there")["code"] == -32601
    assert service.fail("$/unknown", [1])["code"] == -32601


def test_an_unknown_notification_is_ignored(service: Service) -> None:
    service.send("nobody/there", {"x": 1})
    service.send("$/unknown")
    service.alive()
    assert service.heard == []


def test_a_request_without_id_is_not_served(service: Service) -> None:
    """It would work, and nobody would hear how it ended."""
    service.send("image/remove", {"ref": "x"})
    service.send("shutdown")
    service.send("initialize", {})
    assert service.call("sandbox/list", {}) == []
    assert service.heard == []
    assert "Traceback" not in service.errors()


@pytest.mark.parametrize("method", ["initialized", "$/setTrace", "$/cancelRequest"])
def test_a_notification_with_id_is_answered(service: Service, method: str) -> None:
    message = service.reply(service.ask(method, {"id": 12345, "value": "off"}))
    assert message.get("error", {"code": -32601})["code"] == -32601
    service.alive()


def test_responses_to_nothing_are_ignored(serve: Serve, fake_build: FakeBuild) -> None:
    service = serve(env=fake_build.environment()).initialize()
    # Also those with the id of a request of the client's own.
    build = service.ask("image/build", {})
    odd: tuple[object, ...] = (build, 99, "x", None, [1], {})
    for id_ in odd:
        service.write(frame({"jsonrpc": "2.0", "id": id_, "result": None}))
        service.write(frame({"jsonrpc": "2.0", "id": id_, "result": {"a": 1}}))
        service.write(frame({"jsonrpc": "2.0", "id": id_, "error": {"code": 1, "message": ""}}))
        service.write(frame({"jsonrpc": "2.0", "id": id_, "error": "odd"}))
    service.alive()
    service.send("$/cancelRequest", {"id": build})
    assert service.reply(build)["error"]["code"] == -32800
    assert "Traceback" not in service.errors()


@pytest.mark.parametrize("header", ["content-length", "CONTENT-LENGTH", "Content-length"])
def test_a_header_in_any_case(service: Service, header: str) -> None:
    service.write(frame(body(), header))
    assert service.reply(7)["result"] == []


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: %d\r\n\r\n",
        b"Content-Length: %d\r\nContent-Type: application/vscode-jsonrpc; charset=utf8\r\n\r\n",
        b"Content-Length:%d\r\n\r\n",
        b"Content-Length:   %d  \r\nX-Other: 1\r\n\r\n",
    ],
)
def test_other_headers(service: Service, header: bytes) -> None:
    service.write(header % len(body()) + body())
    assert service.reply(7)["result"] == []


def test_one_byte_at_a_time(service: Service) -> None:
    for byte in frame(body(params={"stopped": True})):
        service.write(bytes([byte]))
    assert service.reply(7)["result"] == []


def test_many_messages_at_once(service: Service) -> None:
    service.write(b"".join(frame(body(id=number)) for number in range(100)))
    for number in range(100):
        assert service.reply(number)["result"] == []


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: abc\r\n\r\n{}",
        b"Content-Length: -5\r\n\r\n{}",
        b"Content-Length: 99999999999\r\n\r\n{}",
        b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n{}",
        b"X-Other: 5\r\n\r\n{}",
        b"\r\n\r\n{}",
        b"x" * 10_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda data: repr(data)[:40],
)
def test_bytes_that_are_no_messages_end_it(fresh: Service, data: bytes) -> None:
    """There is no way back to the next message; it says so and leaves."""
    fresh.write(data)
    assert fresh.wait() == 2
    fresh.read_all()
    assert fresh.heard == []
    assert "does not speak the base protocol" in fresh.errors()
    assert "Traceback" not in fresh.errors()


def test_what_came_before_them_is_answered(fresh: Service) -> None:
    unknown = {"jsonrpc": "2.0", "id": 9, "method": "nobody/there"}
    fresh.write(frame(unknown) + b"Content-Length: abc\r\n\r\n")
    assert fresh.wait() == 2
    fresh.read_all()
    assert [message["id"] for message in fresh.heard] == [9]
