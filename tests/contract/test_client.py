"""`sandbox_rpc.client`, against the real service and against odd ones."""

from __future__ import annotations

import base64
import os
import queue
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.client import Client, ServiceGone
from sandbox_rpc.protocol import images as i
from sandbox_rpc.protocol import streams
from sandbox_rpc.protocol import types as t
from sandbox_rpc.protocol.errors import BuildFailed, ProtocolMismatch, SandboxNotFound
from sandbox_rpc.protocol.progress import Progress
from tests.contract.conftest import Fake
from tests.contract.fakes import FakeBuild, is_running
from tests.contract.service import environment

ODD = """
import json, os, sys
def send(message):
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    os.write(1, b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
while header := sys.stdin.buffer.readline():
    sys.stdin.buffer.readline()
    request = json.loads(sys.stdin.buffer.read(int(header.split(b":")[1])))
    if request["method"] == "initialize":
        send({"id": request["id"], **ANSWER})
    elif request["method"] == "sandbox/list":
        for message in SAID:
            send(message)
        send({"id": request["id"], "result": []})
    elif request["method"] == "sandbox/status":
        os.write(1, b"garbage" * 1000)
    elif "id" in request:
        send({"id": request["id"], "result": None})
    elif request["method"] == "exit":
        sys.exit()
"""


def odd(answer: object, *said: object) -> list[str]:
    """A service that answers `initialize` in its own way and says things."""
    script = f"ANSWER, SAID = {answer!r}, {said!r}\n{ODD}"
    return [sys.executable, "-c", script]


@pytest.fixture
def client(base: Path) -> Iterator[Client]:
    with Client(env=environment(base)) as client:
        yield client


def test_values_and_errors(client: Client, fake: Fake) -> None:
    assert client.server["serverInfo"]["name"] == "sandbox-rpc"
    assert client.list() == []
    sandbox = fake("box")
    sandbox.change(state="running", memoryMib=512, revision=3)
    assert client.status("box").memory_mib == 512
    assert client.list() == [client.status("box")]
    with pytest.raises(SandboxNotFound) as caught:
        client.status("nobody")
    assert caught.value.details == {"name": "nobody"}
    assert client.close() == 0


def test_news(client: Client, fake: Fake) -> None:
    heard: queue.Queue[tuple[str, Any]] = queue.Queue()

    def broken(method: str, value: object) -> None:
        raise ValueError("of the listener")

    client.listen(broken)
    client.listen(lambda method, value: heard.put((method, value)))
    client.list()
    sandbox = fake("box")
    method, value = heard.get(timeout=60)
    assert method == "sandbox/didChange"
    assert isinstance(value, t.Sandbox)
    assert value.name == "box"
    sandbox.log.write(b"hello")
    client.request_raw("console/attach", {"name": "box", "stream": "s", "offset": 0})
    while not isinstance(value, streams.ConsoleOutput):
        method, value = heard.get(timeout=60)
    assert base64.b64decode(value.data) == b"hello"


def test_progress(base: Path, fake_build: FakeBuild) -> None:
    env = {**environment(base), **fake_build.environment(status="3")}
    told: list[Progress] = []
    with Client(env=env) as client, pytest.raises(BuildFailed):
        client._long("image/build", i.ImageBuildParams(), i.Image, told.append)
    assert told[0] == Progress("image", "Asking the mirror", 0)


def test_a_service_that_dies(base: Path) -> None:
    with Client(env=environment(base)) as client:
        os.kill(client.pid, signal.SIGSTOP)
        future = client.send("sandbox/list", {})[1]
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(ServiceGone):
            future.result(60)
        with pytest.raises(ServiceGone):
            client.list()


def test_a_service_that_is_none() -> None:
    with pytest.raises(ServiceGone):
        Client([sys.executable, "-c", "pass"])


def test_a_service_of_another_version() -> None:
    """What it says of it reaches the caller, and no process is left."""
    wire = ProtocolMismatch("Too new.", supported=["2.0"]).to_wire()
    with pytest.raises(ProtocolMismatch, match="Too new") as caught:
        Client(odd({"error": wire}))
    assert caught.value.details == {"supported": ["2.0"]}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if is_running(int(pid)) and _is_odd(pid)]


def test_a_newer_service() -> None:
    """What this client does not know is passed over, and the answer behind it still comes."""
    future = {"name": "x", "state": "hibernating", "workspace": "/x"}
    known = {"name": "x", "state": "running", "workspace": "/x", "unknown": [1]}
    said = (
        {"method": "sandbox/didChange", "params": future},
        {"method": "sandbox/didChange", "params": known},
        {"method": "sandbox/didTeleport", "params": {"to": "moon"}},
        {"method": "$/progress", "params": {"token": "nobody's", "value": {"kind": "begin"}}},
        {"id": 4711, "result": None},
    )
    heard: list[tuple[str, Any]] = []
    with Client(odd({"result": {}}, *said)) as client:
        client.listen(lambda method, value: heard.append((method, value)))
        assert client.list() == []
    assert [method for method, _ in heard] == ["sandbox/didChange", "sandbox/didTeleport"]
    assert heard[0][1].state is t.State.RUNNING
    assert heard[1][1] == {"to": "moon"}


def test_a_service_that_babbles() -> None:
    client = Client(odd({"result": {}}))
    with pytest.raises(ServiceGone):
        client.status("x")
    client.close()


def _is_odd(pid: str) -> bool:
    try:
        return b"ANSWER, SAID" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
