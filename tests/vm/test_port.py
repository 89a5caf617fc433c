"""Ports of the host that lead into a real guest, over the deaths of everything in between.

How they are chosen and refused is tested without a machine, in tests/unit/supervisor/test_net.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_rpc.client import Client
from sandbox_rpc.host import process
from sandbox_rpc.network import launch
from sandbox_rpc.protocol.errors import ForwardNotFound, PortTaken
from sandbox_rpc.protocol.types import Forward
from tests.vm.conftest import Running
from tests.vm.host import wait_for

SERVE = """
perl -MIO::Socket::INET -e '
    $listener = IO::Socket::INET->new(LocalPort => 3000, Listen => 9, ReuseAddr => 1) or die $!;
    exit if fork;
    open STDOUT, ">/dev/null"; open STDERR, ">/dev/null"; open STDIN, "</dev/null";
    while ($one = $listener->accept) { $line = <$one>; print $one "guest heard $line"; close $one }
'
"""


@pytest.fixture(scope="module")
def serving(sandbox: Running) -> Iterator[Running]:
    """The shared sandbox with a server in it; its forwards are closed afterwards."""
    sandbox.sh(SERVE)
    yield sandbox
    for one in forwards(sandbox):
        sandbox.host.run("port", "close", str(one["hostPort"]), sandbox.name)


def forwards(sandbox: Running) -> list[dict[str, Any]]:
    """As `status` has them."""
    found: list[dict[str, Any]] = sandbox.host.json("status", sandbox.name).get("forwards", [])
    return found


def say(port: int) -> str:
    """What the guest's server answers on a port of the host."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"hello\n")
        return one.makefile().read()


def kill(pid: int) -> None:
    """kill -9, and wait for the end."""
    found = process.identify(pid)
    assert found is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not found.is_alive(), f"the end of {pid}")


def network_process(sandbox: Running) -> int:
    running = launch.attach(sandbox.host.room_of(sandbox.name).network_control)
    running.control.close()
    return running.pid


def test_a_forward_and_what_it_outlives(serving: Running) -> None:
    """The network process killed, the supervisor killed, both killed: always the same port."""
    host, name = serving.host, serving.name
    opened = json.loads(host.run("port", "3000", name, "--json").out)
    assert opened["guestPort"] == 3000
    port = opened["hostPort"]
    assert say(port) == "guest heard hello\n"
    assert host.json("port", "list", name) == forwards(serving) == [opened]

    before = network_process(serving)
    kill(before)
    assert say(port) == "guest heard hello\n"
    assert serving.ssh("echo again").out == "again\n"
    assert network_process(serving) != before

    kill(host.supervisor_pid(name))
    assert say(port) == "guest heard hello\n"
    assert forwards(serving) == [opened]
    assert host.json("status", name)["ssh"] == serving.value["ssh"]

    kill(host.supervisor_pid(name))
    kill(network_process(serving))
    assert forwards(serving) == [opened], "this command brings the next supervisor"
    assert say(port) == "guest heard hello\n"
    assert serving.ssh("echo still").out == "still\n"

    assert host.run("port", "close", "3000", name).out == f"127.0.0.1:{port} is closed.\n"
    with pytest.raises(ConnectionRefusedError):
        say(port)
    assert forwards(serving) == []


def test_by_the_service(serving: Running) -> None:
    """With the Python client; every client hears of it."""
    heard: list[list[Forward]] = []
    with Client(env=serving.host.environment) as client:
        client.listen(lambda _, value: heard.append(getattr(value, "forwards", [])))
        opened = client.forward(serving.name, 3000)
        assert client.forward(serving.name, 3000, opened.host_port) == opened
        assert say(opened.host_port) == "guest heard hello\n"
        assert client.status(serving.name).forwards == [opened]
        wait_for(lambda: [opened] in heard, "the news")
        with pytest.raises(PortTaken):
            client.forward(serving.name, 3000, serving.value["ssh"]["port"])
        assert client.close_port(serving.name, opened.host_port) == opened
        with pytest.raises(ForwardNotFound):
            client.close_port(serving.name, opened.host_port)
        wait_for(lambda: heard[-1] == [], "the news of its end")
    with pytest.raises(ConnectionRefusedError):
        say(opened.host_port)
