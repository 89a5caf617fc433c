"""The network of a real guest on this very host: its addresses, and its process's life beside QEMU.

The table of what is reached and what is not is in test_reach.py, in a world made for it; here are
the addresses that this machine happens to have.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sandbox_rpc.network import control, launch
from tests.vm.conftest import Running

KNOCK = """
import socket, sys, time
for line in sys.argv[1:]:
    address, port = line.rsplit("/", 1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    began = time.monotonic()
    with socket.socket(family) as one:
        one.settimeout(20)
        try:
            one.connect((address, int(port)))
            print(one.recv(20).decode().strip() or "closed")
        except ConnectionRefusedError:
            print("refused")
        except TimeoutError:
            print("silence")
        except OSError as error:
            print("unreachable", error.errno)
"""


class Canaries:
    """Servers on the host that say which one they are."""

    def __init__(self, stack: ExitStack) -> None:
        self.ports: dict[str, int] = {}
        for word, family, address in (
            ("loopback", socket.AF_INET, "127.0.0.1"), ("any", socket.AF_INET, "0.0.0.0"),
            ("loopback6", socket.AF_INET6, "::1"),
        ):  # fmt: skip
            listener = stack.enter_context(socket.socket(family))
            listener.bind((address, 0))
            listener.listen(8)
            self.ports[word] = listener.getsockname()[1]
            threading.Thread(target=self._greet, args=(listener, word), daemon=True).start()

    def _greet(self, listener: socket.socket, word: str) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(f"{word}\n".encode())


@pytest.fixture(scope="module")
def canaries() -> Iterator[Canaries]:
    """For all tests of this file."""
    with ExitStack() as stack:
        yield Canaries(stack)


def own_addresses() -> list[str]:
    listing = subprocess.run(
        ["ip", "-4", "-o", "addr", "show", "up"], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[3].partition("/")[0] for line in listing.splitlines()]


def closed_doors(canaries: Canaries) -> list[str]:
    """What the host reaches and the guest must not; as `ADDRESS/PORT`."""
    ports = canaries.ports
    doors = [f"{address}/{ports['any']}" for address in own_addresses()]
    doors += [f"127.0.0.1/{ports['loopback']}", f"::1/{ports['loopback6']}"]
    return doors


def knock(doors: list[str]) -> list[str]:
    return subprocess.run(
        ["python3", "-c", KNOCK, *doors], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def knock_inside(sandbox: Running, doors: list[str]) -> list[str]:
    """The same from the guest, whose shell has to do."""
    script = "".join(
        f"(timeout 30 bash -c 'exec 3<>/dev/tcp/{door} && head -n 1 <&3') 2>&1 | tail -n 1\n"
        for door in doors
    )
    return sandbox.sh(script).out.splitlines()


def test_the_host_is_out_of_reach(canaries: Canaries, sandbox: Running) -> None:
    """Its loopback, its addresses, and the forms they are hidden in."""
    doors = closed_doors(canaries)
    assert set(knock(doors)) == {"any", "loopback", "loopback6"}
    ports = canaries.ports
    hidden = [f"10.0.2.2/{port}" for port in ports.values()]
    hidden += [f"fec0::2/{ports['loopback6']}", f"::ffff:10.0.2.2/{ports['loopback']}"]
    answers = knock_inside(sandbox, [*doors, *hidden, "169.254.169.254/80"])
    assert len(answers) == len(doors) + len(hidden) + 1
    for answer in answers:
        assert answer.endswith(("Connection refused", "Network is unreachable")), answers


def test_the_guest_learns_its_network(sandbox: Running) -> None:
    """Its address, its router, its name server; large packets; no global IPv6."""
    assert "10.0.2.15/24" in sandbox.sh("ip -4 addr").out
    assert "default via 10.0.2.2" in sandbox.sh("ip route").out
    assert "mtu 9000" in sandbox.sh("ip link show up").out
    assert sandbox.sh("cat /etc/resolv.conf").out == "nameserver 10.0.2.3\n"
    assert "scope global" not in sandbox.sh("ip -6 addr").out


def test_names_are_asked_of_the_hosts_resolver(sandbox: Running) -> None:
    """An answer comes, whatever it is."""
    script = (
        'perl -MIO::Socket::INET -e \'$s = IO::Socket::INET->new(PeerAddr => "10.0.2.3", '
        'PeerPort => 53, Proto => "udp"); '
        'print $s pack("n6", 4711, 256, 1, 0, 0, 0), "\\x09localhost\\0", pack("n2", 1, 1); '
        '$SIG{ALRM} = sub { exit 1 }; alarm 20; $s->recv($a, 512); print unpack("n", $a)\''
    )
    assert sandbox.sh(script).out == "4711"


def test_a_killed_network_process_is_replaced(sandbox: Running) -> None:
    """On the same port, and nobody who comes in between is refused."""
    room = sandbox.host.room_of(sandbox.name)
    first = launch.attach(room.network_control)
    os.kill(first.pid, signal.SIGKILL)
    assert sandbox.ssh("echo again").out == "again\n"
    second = launch.attach(room.network_control)
    assert second.pid != first.pid
    (forward, _) = control.call(second.control, "status")[0]["forwards"]
    assert forward["address"] == f"127.0.0.1:{sandbox.value['ssh']['port']}"
    for one in (first, second):
        one.control.close()


def test_it_outlives_the_supervisor(sandbox: Running) -> None:
    """The next supervisor takes it over as it is, and the guest's connections with it."""
    room = sandbox.host.room_of(sandbox.name)
    before = launch.attach(room.network_control)
    os.kill(sandbox.host.supervisor_pid(sandbox.name), signal.SIGKILL)
    assert sandbox.ssh("echo still").out == "still\n"
    assert sandbox.host.json("status", sandbox.name)["state"] == "running"
    after = launch.attach(room.network_control)
    assert after.pid == before.pid
    os.kill(after.pid, signal.SIGKILL)
    assert sandbox.ssh("echo replaced").out == "replaced\n"
    for one in (before, after):
        one.control.close()
