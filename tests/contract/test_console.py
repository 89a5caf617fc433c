"""Consoles: by offset, without loss, without repetition; the log is written by the test."""

from __future__ import annotations

import base64
import ctypes
import os
import random
from typing import Any

import pytest

from tests.contract.conftest import Fake, Serve
from tests.contract.fakes import FakeSandbox
from tests.contract.service import SERVE, Service

MIB = 1 << 20


def attach(service: Service, stream: str = "s", name: str = "box", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = service.call("console/attach", {"name": name, "stream": stream, **more})
    return found


def output(service: Service, stream: str, size: int, begin: int) -> bytes:
    """The next `size` bytes of a stream; offsets must follow each other from `begin`."""
    data = bytearray()
    while len(data) < size:
        message = service.take(
            lambda m: m.get("method") == "console/output" and m["params"]["stream"] == stream
        )
        assert message["params"]["offset"] == begin + len(data)
        data += base64.b64decode(message["params"]["data"], validate=True)
    assert len(data) == size
    return bytes(data)


def closed(service: Service, stream: str = "s") -> str:
    message = service.take(
        lambda m: m.get("method") == "console/closed" and m["params"]["stream"] == stream
    )
    reason: str = message["params"]["reason"]
    return reason


def write(sandbox: FakeSandbox, data: bytes) -> bytes:
    sandbox.log.write(data)
    return data


@pytest.mark.parametrize(
    ("where", "begin"),
    [
        ({"offset": 0}, 0),
        ({"offset": 500}, 500),
        ({"offset": 1000}, 1000),
        ({"offset": 5000}, 1000),
        ({"offset": 2**70}, 1000),
        ({"offset": -5}, 0),
        ({"tail": 0}, 1000),
        ({"tail": 1}, 999),
        ({"tail": 5000}, 0),
        ({"tail": -5}, 1000),
        ({"offset": 3, "tail": 10}, 990),
        ({}, 1000),
    ],
    ids=str,
)
def test_where_it_begins(serve: Serve, fake: Fake, where: dict[str, Any], begin: int) -> None:
    sandbox = fake()
    old = write(sandbox, random.Random(1).randbytes(1000))
    service = serve().initialize()
    assert attach(service, **where) == {"offset": begin, "size": 1000}
    new = write(sandbox, b"new")
    assert output(service, "s", 1003 - begin, begin) == (old + new)[begin:]


def test_the_answer_comes_before_the_output(serve: Serve, fake: Fake) -> None:
    write(fake(), b"x" * 1000)
    service = serve().initialize()
    id_ = service.ask("console/attach", {"name": "box", "stream": "s", "offset": 0})
    assert service.take(lambda _: True)["id"] == id_
    assert service.take(lambda _: True)["method"] == "console/output"


def test_what_there_is_and_no_more(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    old = write(sandbox, os.urandom(200_000))
    service = serve().initialize()
    attach(service, offset=0, follow=False)
    assert output(service, "s", len(old), 0) == old
    assert closed(service) == "complete"
    # The name is free again.
    attach(service, offset=0, follow=False)
    assert closed(service) == "complete"


def test_following(serve: Serve, fake: Fake) -> None:
    """Written in odd pieces while it is read: each byte once, in order."""
    sandbox = fake()
    service = serve().initialize()
    attach(service)
    source = random.Random(2)
    written = b""
    for _ in range(300):
        written += write(sandbox, source.randbytes(source.choice((1, 2, 100, 5000, 70_000))))
    assert output(service, "s", len(written), 0) == written


def test_detach(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = serve().initialize()
    attach(service)
    detach = service.ask("console/detach", {"stream": "s"})
    assert closed(service) == "detached"
    assert service.reply(detach)["result"] is None
    write(sandbox, b"nobody hears this")
    service.alive()
    assert service.heard == []
    for method in ("console/detach", "console/write", "console/resize"):
        params = {"stream": "s", "data": "", "columns": 1, "rows": 1}
        assert service.fail(method, params)["data"]["kind"] == "consoleGone"


def test_closed_comes_before_the_answer_to_detach(serve: Serve, fake: Fake) -> None:
    fake()
    service = serve().initialize()
    attach(service)
    service.call("console/detach", {"stream": "s"})
    assert [message["method"] for message in service.heard] == ["console/closed"]


def test_a_stream_in_use(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = serve().initialize()
    attach(service)
    error = service.fail("console/attach", {"name": "box", "stream": "s"})
    assert error["code"] == -32602
    assert "params.stream" in error["data"]["problems"][0]
    data = write(sandbox, b"goes on")
    assert output(service, "s", len(data), 0) == data


def test_one_that_does_not_run(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    service = serve().initialize()
    sandbox.change(state="starting", consoleLog=None)
    params = {"name": "box", "stream": "s"}
    assert service.fail("console/attach", params)["data"]["kind"] == "sandboxNotRunning"
    sandbox.change(state="starting", consoleLog=str(sandbox.room.folder / "not-yet"))
    assert service.fail("console/attach", params)["data"]["kind"] == "sandboxNotRunning"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_log_that_the_guest_has_swapped(serve: Serve, fake: Fake, kind: str) -> None:
    """Its folder is writable by QEMU: nothing is followed, nothing is waited for."""
    sandbox = fake()
    path = sandbox.room.console_log
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    service = serve().initialize()
    error = service.fail("console/attach", {"name": "box", "stream": "s", "offset": 0})
    assert error["data"]["kind"] == "sandboxNotRunning"


@pytest.mark.parametrize("first", ["the log", "the locks"])
def test_the_end_of_the_machine(serve: Serve, fake: Fake, first: str) -> None:
    """All it has written comes before the end is told, whichever the kernel closes first."""
    sandbox = fake()
    service = serve().initialize()
    attach(service)
    data = write(sandbox, os.urandom(3 * MIB))
    if first == "the log":
        sandbox.log.close()
        assert output(service, "s", len(data), 0) == data
    sandbox.end()
    if first == "the locks":
        assert output(service, "s", len(data), 0) == data
    assert closed(service) == "stopped"


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_the_end_of_the_log(serve: Serve, fake: Fake, how: str) -> None:
    """A reader that came after QEMU had closed it learns of the end when the room is cleared."""
    sandbox = fake()
    data = write(sandbox, b"last words")
    sandbox.log.close()
    service = serve().initialize()
    attach(service, offset=0)
    assert output(service, "s", len(data), 0) == data
    path = sandbox.room.console_log
    if how == "removed":
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere"))
    assert closed(service) == "stopped"


def test_the_supervisor_closing_the_log_is_not_the_end(serve: Serve, fake: Fake) -> None:
    """It does so each time it has given the head back to the file system."""
    sandbox = fake()
    service = serve().initialize()
    attach(service)
    written = b""
    for number in range(30):
        written += write(sandbox, b"%d\n" % number)
        os.close(os.open(sandbox.room.console_log, os.O_RDWR))
    assert output(service, "s", len(written), 0) == written
    more = write(sandbox, b"and on")
    assert output(service, "s", len(more), len(written)) == more


def punch(path: Any, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        assert libc.fallocate(descriptor, 3, 0, size) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(descriptor)


def test_a_head_that_was_given_back(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    data = write(sandbox, os.urandom(4 * MIB))
    punch(sandbox.room.console_log, 3 * MIB)
    service = serve().initialize()
    assert attach(service, offset=5) == {"offset": 3 * MIB, "size": 4 * MIB}
    assert output(service, "s", MIB, 3 * MIB) == data[3 * MIB :]


def test_a_head_that_goes_while_a_slow_reader_is_there(serve: Serve, fake: Fake) -> None:
    """What is lost shows in the offset; zeros that nobody wrote are not sent."""
    sandbox = fake()
    data = write(sandbox, b"x" * (16 * MIB))
    service = serve().initialize()
    service.ask("console/attach", {"name": "box", "stream": "s", "offset": 0})
    service.wait_until_stuck()
    punch(sandbox.room.console_log, 15 * MIB)
    heard = bytearray(len(data))
    end = 0
    while end < len(data):
        value = service.news("console/output")
        part = base64.b64decode(value["data"])
        assert set(part) == {ord("x")}
        assert value["offset"] >= end
        end = value["offset"] + len(part)
        heard[value["offset"] : end] = part
    assert bytes(heard[15 * MIB :]) == data[15 * MIB :]
    assert heard.count(0) > 10 * MIB, "the reader was never slow"


def test_many_readers_of_many_consoles(serve: Serve, fake: Fake) -> None:
    """More than the kernel lets one process have is an answer, not an end."""
    sandbox = fake()
    service = serve(command=("prlimit", "--nofile=64", *SERVE)).initialize()
    asked = {
        f"s{n}": service.ask("console/attach", {"name": "box", "stream": f"s{n}"})
        for n in range(40)
    }
    answers = {stream: service.reply(id_) for stream, id_ in asked.items()}
    good = [stream for stream, answer in answers.items() if "result" in answer]
    assert 10 < len(good) < 40
    data = write(sandbox, b"for all")
    for stream in good:
        assert output(service, stream, len(data), 0) == data
    service.alive()


def test_writing_without_a_supervisor(serve: Serve, fake: Fake) -> None:
    fake()
    service = serve().initialize()
    attach(service)
    data = base64.b64encode(b"x").decode()
    error = service.fail("console/write", {"stream": "s", "data": data})
    assert error["data"]["kind"] == "consoleGone"
    error = service.fail("console/resize", {"stream": "s", "columns": 80, "rows": 24})
    assert error["data"]["kind"] == "consoleGone"


def test_a_reader_that_stops_harms_nobody(serve: Serve, fake: Fake) -> None:
    """Three clients and 64 MiB; one of them does not read until the others are done."""
    sandbox = fake()
    data = write(sandbox, random.Random(3).randbytes(64 * MIB))
    clients = [serve().initialize() for _ in range(3)]
    lazy, *busy = clients
    before = [client.status_mib("VmHWM") for client in clients]
    id_ = lazy.ask("console/attach", {"name": "box", "stream": "s", "offset": 0})
    lazy.wait_until_stuck()
    for client in busy:
        attach(client, offset=0)
        assert output(client, "s", len(data), 0) == data
    # And it still takes requests.
    other = lazy.ask("sandbox/list", {})
    assert lazy.reply(id_)["result"]["size"] == len(data)
    assert output(lazy, "s", len(data), 0) == data
    assert len(lazy.reply(other)["result"]) == 1
    for client, was in zip(clients, before, strict=True):
        assert client.status_mib("VmHWM") - was < 50, "it holds what nobody has read"


def test_three_streams_of_one_slow_client(serve: Serve, fake: Fake) -> None:
    """They wait for room together, and all go on."""
    sandbox = fake()
    data = write(sandbox, random.Random(4).randbytes(6 * MIB))
    service = serve().initialize()
    for stream in "abc":
        service.ask("console/attach", {"name": "box", "stream": stream, "offset": 0})
    service.wait_until_stuck()
    for stream in "abc":
        assert output(service, stream, len(data), 0) == data
