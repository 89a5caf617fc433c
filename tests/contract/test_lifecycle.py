"""From the first message to the exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.protocol.methods import VERSION
from tests.contract.conftest import Serve
from tests.contract.service import Service, environment, frame


def test_initialize_says_who_answers(serve: Serve) -> None:
    result = serve().call("initialize", {"capabilities": {}})
    assert result["serverInfo"]["name"] == "sandbox-rpc"
    sandbox = result["capabilities"]["experimental"]["sandbox"]
    assert sandbox == {"protocolVersion": VERSION, "features": {"console": True, "exec": True}}
    assert set(result["capabilities"]) == {"experimental"}, "we serve no documents"


def test_a_request_before_initialize_is_refused(serve: Serve) -> None:
    service = serve()
    assert service.fail("sandbox/list", {})["code"] == -32002
    assert service.fail("nobody/there", {})["code"] == -32002
    service.initialize()
    assert service.call("sandbox/list", {}) == []


def test_a_second_initialize_is_refused(service: Service) -> None:
    assert service.fail("initialize", {"capabilities": {}})["code"] == -32600
    service.alive()


@pytest.mark.parametrize(
    "params",
    [
        {"capabilities": {"experimental": {"sandbox": {"protocolVersion": VERSION}}}},
        {"capabilities": {"experimental": {"sandbox": {"protocolVersion": "1.999"}}}},
        {"capabilities": {"experimental": {"sandbox": {"protocolVersion": 7}}}},
        {"capabilities": {"experimental": {"sandbox": []}}},
        {"capabilities": {"experimental": None, "textDocument": {"x": [1]}}, "processId": None},
        {"capabilities": [], "rootUri": []},
        {"capabilities": None, "rootUri": None, "clientInfo": {"name": "x"}},
        {},
    ],
)
def test_no_capability_breaks_the_handshake(serve: Serve, params: object) -> None:
    assert "capabilities" in serve().call("initialize", params)


def test_another_major_version_is_refused(serve: Serve) -> None:
    service = serve()
    asked = {"experimental": {"sandbox": {"protocolVersion": "2.0"}}}
    error = service.fail("initialize", {"capabilities": asked})
    assert error["code"] == 1007
    assert error["data"]["kind"] == "protocolMismatch"
    assert error["data"]["supported"] == [VERSION]
    assert error["data"]["hint"]
    assert service.fail("sandbox/list", {})["code"] == -32002


def test_shutdown_then_exit_ends_with_0(fresh: Service) -> None:
    assert fresh.call("shutdown") is None
    assert fresh.fail("sandbox/list", {})["code"] == -32600
    fresh.send("exit")
    assert fresh.wait() == 0


def test_shutdown_and_exit_in_one_breath(fresh: Service) -> None:
    first = frame({"jsonrpc": "2.0", "id": 1, "method": "shutdown"})
    fresh.write(first + frame({"jsonrpc": "2.0", "method": "exit"}))
    assert fresh.reply(1)["result"] is None
    assert fresh.wait() == 0


def test_exit_without_shutdown_ends_with_1(fresh: Service) -> None:
    fresh.send("exit")
    assert fresh.wait() == 1


def test_exit_before_initialize(serve: Serve) -> None:
    service = serve()
    service.send("exit")
    assert service.wait() == 1


def test_the_end_of_the_input_ends_it(fresh: Service) -> None:
    fresh.close_input()
    assert fresh.wait() == 0
    fresh.read_all()


@pytest.mark.parametrize("cut", [1, 16, 20, 23, 40])
def test_the_end_of_the_input_in_the_middle_of_a_message(fresh: Service, cut: int) -> None:
    data = frame({"jsonrpc": "2.0", "id": 1, "method": "sandbox/list", "params": {}})
    fresh.write(data[:cut])
    fresh.close_input()
    assert fresh.wait() == 0
    fresh.read_all()
    assert fresh.heard == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(fresh: Service, number: signal.Signals) -> None:
    fresh.process.send_signal(number)
    assert fresh.wait() == 0
    assert "Traceback" not in fresh.errors()


def test_a_signal_ends_it_while_nobody_reads(serve: Serve) -> None:
    service = serve().initialize()
    # More than a pipe takes: the service is waiting to write when the signal comes.
    for _ in range(20):
        service.ask("x" * 100_000, {})
    service.wait_until_stuck()
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Traceback" not in service.errors()


def test_a_client_that_has_closed_its_ear(serve: Serve) -> None:
    service = serve().initialize()
    assert service.process.stdout is not None
    service.process.stdout.close()
    for _ in range(50):
        service.ask("sandbox/list", {})
    service.close_input()
    assert service.wait() == 0
    assert "Traceback" not in service.errors()


def test_a_stray_print_does_not_reach_the_wire(serve: Serve) -> None:
    script = (
        "import os, sys\n"
        "import sandbox_rpc.server.answers as answers\n"
        "def examine(*_):\n"
        "    print('stray', flush=True)\n"
        "    os.system('echo child; cat')\n"
        "    raise SystemError('odd')\n"
        "answers.examine = examine\n"
        "from sandbox_rpc.server.main import main\n"
        "sys.exit(main())\n"
    )
    service = serve(command=(sys.executable, "-P", "-c", script)).initialize()
    doctor = service.ask("host/doctor")
    # A child that reads its input does not eat the client's messages.
    assert service.call("sandbox/list", {}) == []
    assert service.reply(doctor)["error"]["code"] == -32603
    assert service.leave() == 0
    assert "stray\nchild\n" in service.errors()


def test_a_file_of_messages_as_input(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "messages"
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}},
        {"jsonrpc": "2.0", "method": "initialized", "params": {}},
        {"jsonrpc": "2.0", "id": "two", "method": "sandbox/nothing", "params": {}},
        {"jsonrpc": "2.0", "id": 3, "method": "shutdown"},
        {"jsonrpc": "2.0", "method": "exit"},
    ]
    path.write_bytes(b"".join(frame(message) for message in messages))
    with path.open("rb") as file:
        service = serve(stdin=file)
    assert service.wait() == 0
    service.read_all()
    assert [message["id"] for message in service.heard] == [1, "two", 3]
    assert service.heard[1]["error"]["code"] == -32601


def test_output_to_a_file(base: Path, tmp_path: Path) -> None:
    # epoll takes no plain file, and a reader that polls everything would end here.
    path = tmp_path / "messages"
    path.write_bytes(
        frame({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
        + frame({"jsonrpc": "2.0", "id": 2, "method": "shutdown"})
        + frame({"jsonrpc": "2.0", "method": "exit"})
    )
    with path.open("rb") as source, (tmp_path / "out").open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox_rpc"],
            stdin=source,
            stdout=sink,
            env={**os.environ, "SANDBOX_CACHE_BASE": str(base)},
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    answers = (tmp_path / "out").read_bytes()
    assert answers.count(b"Content-Length: ") == 2


def test_the_pipe_is_given_back_as_it_came(serve: Serve) -> None:
    # The open file may be shared with the shell that started us.
    service = serve().initialize()
    assert service.leave() == 0
    assert os.get_blocking(service.output)


@pytest.mark.parametrize("closed", [0, 2])
def test_a_closed_standard_stream_is_no_obstacle(base: Path, closed: int) -> None:
    """Some editors start a server without stderr; without stdin it has nobody to serve."""
    message = frame({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    command = f"exec {sys.executable} -m sandbox_rpc.server.main {closed}>&-"
    done = subprocess.run(
        ["sh", "-c", command], input=message, capture_output=True, timeout=60,
        env=environment(base), check=False,
    )  # fmt: skip
    assert (b"serverInfo" in done.stdout) == (closed == 2)
    assert b"Traceback" not in done.stderr
