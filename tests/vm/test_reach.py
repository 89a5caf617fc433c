"""What a real guest reaches of a whole world: research's table, row by row, open and offline.

The world is the island's (`tests.vm.island`): every canary is seen to answer its own host first, so
a refusal in the guest means something. Two machines, one for each mode.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from sandbox_rpc.host import process
from sandbox_rpc.network import control, launch
from sandbox_rpc.protocol.errors import NetworkFailed
from tests.unit.network.lab import (
    BEYOND,
    INTERNET,
    INTERNET_6,
    NEIGHBOUR,
    OWN_LAN,
    OWN_PUBLIC,
    RESOLVER,
    SHADOWED,
    alive,
    descriptors,
    knock,
    send,
)
from tests.vm.conftest import Running
from tests.vm.host import Host, wait_for
from tests.vm.island import Door, Island, knock_inside, python

ROUTER = "10.0.2.2"
LET_IN = 7005
"""A port of the island's loopback that a setting opens."""
ALLOWED = f"{NEIGHBOUR}:8081"
REGISTRIES = """
@lan:registry=http://mirror.lan:8083/npm/
@cloud:registry=http://cloud.example/npm/
@inside:registry=http://inside.example:7006/npm/
@gone:registry=http://gone.example/npm/
"""
"""One that only the host's own list of hosts knows; two whose names lead where none may; none."""
OF_THE_HOST = {
    ("tcp", "127.0.0.1", 7006): "loopback",
    ("tcp", "::1", 7001): "loopback6",
    ("tcp", OWN_LAN, 7002): "any",
    ("tcp", OWN_PUBLIC, 7002): "any",
    ("tcp", OWN_LAN, 7003): "own-lan",
    ("tcp", OWN_PUBLIC, 7004): "own-public",
    ("udp", OWN_LAN, 7002): "any-udp hello",
    ("udp", "127.0.0.1", 7002): "any-udp hello",
}
"""Services on the host's loopback, on all its addresses, and on one of them only."""
AROUND = {
    **{("tcp", address, 80): "beyond" for address in BEYOND if address != INTERNET},
    ("udp", NEIGHBOUR, 80): "beyond-udp hello",
    ("udp", RESOLVER, 53): "resolver hello",
}
"""Neighbours, private networks, metadata of clouds: the host gets there, no guest may."""
INTERNET_IS = {
    ("tcp", INTERNET, 80): "beyond",
    ("udp", INTERNET, 80): "beyond-udp hello",
    ("udp", INTERNET, 53): "public-dns hello",
}
HIDDEN: list[Door] = [
    *(("tcp", ROUTER, port) for port in (22, 7001, 7002, 7006)),
    ("udp", ROUTER, 7002),
    ("tcp", "10.0.2.3", 80),
    ("tcp", "10.0.2.100", 8888),
    ("tcp", "::ffff:127.0.0.1", 7006),
    ("tcp", f"::ffff:{OWN_LAN}", 7003),
    ("tcp", f"::ffff:{ROUTER}", 7006),
    ("tcp", "fec0::2", 7001),
    ("tcp", "2620:fe::2", 7001),
    ("tcp", INTERNET_6, 80),
    ("tcp", "64:ff9b::7f00:1", 7001),
    ("tcp", "2002:7f00:1::", 7001),
    ("tcp", "0.0.0.0", 7002),
]
"""The same in disguise, and what libslirp has at home."""


@pytest.fixture(scope="module")
def canaries(island: Island) -> Island:
    """The island with those services that the world has not by itself."""
    echo, world = island.world.echo, island.world
    echo.serve(world.host, "127.0.0.1", 7006, "loopback")
    echo.serve(world.host, "127.0.0.1", LET_IN, "let in")
    for port in (8081, 8082, 8083, 8084):
        echo.serve(world.internet, NEIGHBOUR, port, "neighbour")
    with (island.etc / "hosts").open("a") as hosts:
        hosts.write(f"{NEIGHBOUR} mirror.lan\n")
    island.names.table |= {"cloud.example": "169.254.169.254", "inside.example": "127.0.0.1"}
    return island


@pytest.fixture(scope="module")
def open_(canaries: Island, island_host: Host) -> Iterator[Running]:
    """A sandbox in the open network, with one exception of each kind."""
    (island_host.home / ".npmrc").write_text(REGISTRIES)
    workspace = island_host.workspace("open")
    words = ("--allow-host-port", str(LET_IN), "--allow-address", ALLOWED)
    yield Running(island_host, workspace, island_host.start(workspace, *words))
    island_host.run("stop", "--force", str(workspace), check=False)


@pytest.fixture(scope="module")
def offline(canaries: Island, island_host: Host) -> Iterator[Running]:
    """A sandbox without a network."""
    workspace = island_host.workspace("offline")
    yield Running(island_host, workspace, island_host.start(workspace, "--network", "offline"))
    island_host.run("stop", "--force", str(workspace), check=False)


def ask(sandbox: Running) -> tuple[int, dict[str, Any]]:
    """The network process's pid and status."""
    running = launch.attach(sandbox.host.room_of(sandbox.name).network_control)
    with running.control:
        return running.pid, control.call(running.control, "status")[0]


def is_closed(answer: str) -> bool:
    """Refused at once, not left without an answer."""
    return answer.startswith(("refused", "unreachable"))


@pytest.mark.parametrize("mode", ["open", "offline"])
def test_the_table(mode: str, canaries: Island, request: pytest.FixtureRequest) -> None:
    """All rows at once; what is refused is refused in one round trip."""
    sandbox: Running = request.getfixturevalue("open_" if mode == "open" else "offline")
    seen = {**OF_THE_HOST, **AROUND, **INTERNET_IS}
    for (kind, address, port), word in seen.items():
        look = send if kind == "udp" else knock
        assert look(canaries.world.host, address, port) == word
    answers = knock_inside(sandbox.host, sandbox.name, [*seen, *HIDDEN])
    reachable = INTERNET_IS if mode == "open" else {}
    assert {door: answers[door] for door in reachable} == reachable
    wrong = {door: word for door, word in answers.items()
             if door not in reachable and not is_closed(word)}  # fmt: skip
    # Its own network goes before the host's of the same numbers: there nobody answers.
    assert set(wrong) <= {("tcp", SHADOWED, 80)}
    assert set(wrong.values()) <= {"silence"}


def test_exceptions_open_what_they_name(open_: Running) -> None:
    """One port of the host's loopback, one port of one neighbour, nothing beside them."""
    doors: list[Door] = [
        ("tcp", ROUTER, LET_IN), ("tcp", NEIGHBOUR, 8081), ("tcp", ROUTER, 7006),
        ("tcp", NEIGHBOUR, 8082), ("udp", ROUTER, LET_IN), ("tcp", OWN_LAN, LET_IN),
    ]  # fmt: skip
    words = list(knock_inside(open_.host, open_.name, doors).values())
    assert words[:2] == ["let in", "neighbour"]
    assert all(map(is_closed, words[2:])), words


def test_registries_open_their_port_and_nothing_else(open_: Running) -> None:
    """By the host's idea of their names; none that resolves to where no guest may go."""
    doors: list[Door] = [
        ("tcp", "mirror.lan", 8083), ("tcp", "mirror.lan", 8084), ("udp", "mirror.lan", 8083),
        ("tcp", "cloud.example", 80), ("tcp", ROUTER, 7006),
    ]  # fmt: skip
    words = list(knock_inside(open_.host, open_.name, doors).values())
    assert words[0] == "neighbour"
    assert all(map(is_closed, words[1:])), words
    told = open_.sh("cat /etc/npmrc").out
    assert [name in told for name in ("@lan", "@inside")] == [True, False]
    warnings = " ".join(open_.value["warnings"])
    assert "inside.example is on its own loopback" in warnings
    assert re.search(r"no IPv4 address of [^:]*gone\.example", warnings)


RAW = r"""
import json, socket, struct, sys, time
def total(data):
    data += b"\0" * (len(data) % 2)
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
card.bind(("eth0", 0))
card.settimeout(20)
mac = bytes.fromhex(open("/sys/class/net/eth0/address").read().replace(":", ""))
def packet(to, port, word=0):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 1, word, 64, 6, 0,
                       socket.inet_aton("10.0.2.15"), socket.inet_aton(to))
    head = head[:10] + struct.pack(">H", total(head)) + head[12:]
    syn = struct.pack(">HHIIBBHHH", 40000, port, 7, 0, 0x50, 2, 1024, 0, 0)
    pseudo = head[12:20] + struct.pack(">BBH", 0, 6, 20)
    return head + syn[:16] + struct.pack(">H", total(pseudo + syn)) + syn[18:]
def frame(body, kind=0x0800):
    return bytes.fromhex("525500000202") + mac + struct.pack(">H", kind) + body
def answer(to, port):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            got = card.recv(9100)
        except TimeoutError:
            break
        if got[12:14] == b"\x08\0" and got[23] == 6 and got[26:30] == socket.inet_aton(to) \
                and int.from_bytes(got[34:36], "big") == port and got[36:38] == b"\x9c\x40":
            return got[47]
    return None
flags = {}
for to, port in json.load(sys.stdin):
    card.send(frame(packet(to, port)))
    flags[to] = answer(to, port)
    # In disguise: a tag, two tags, a fragment, IPv4 in IPv6, another type, odd lengths.
    plain = packet(to, port)
    six = struct.pack(">IHBB", 0x60000000, 20, 6, 64) + socket.inet_pton(socket.AF_INET6, "fe80::1")
    six += socket.inet_pton(socket.AF_INET6, "::ffff:" + to) + plain[20:]
    for one in (frame(b"\0\1\x08\0" + plain, 0x8100),
                frame(b"\0\1\x81\0\0\1\x08\0" + plain, 0x88A8),
                frame(packet(to, port, 0x2000)), frame(packet(to, port, 1)), frame(six, 0x86DD),
                frame(plain, 0x88F8), frame(plain[:30]), frame(b"\x46" + plain[1:]),
                frame(b"\x45\0\xff\xff" + plain[4:]), frame(plain + bytes(8000))):
        card.send(one)
print(json.dumps(flags))
"""


def test_frames_that_no_program_would_send(open_: Running, canaries: Island) -> None:
    """By root with a raw socket: addresses that the guest's own kernel would keep to itself."""
    pid, before = ask(open_)
    doors = [("127.0.0.1", 7006), ("127.0.0.53", 53), ("0.0.0.0", 7002), ("224.0.0.1", 80),
             ("255.255.255.255", 80), (OWN_LAN, 7002), (ROUTER, 7006)]  # fmt: skip
    before_names = len(canaries.names.asked)
    flags = json.loads(python(open_.host, open_.name, RAW, json.dumps(doors), root=True))
    reset = {1 << 2, 1 << 2 | 1 << 4}
    assert {to: flag in reset for to, flag in flags.items()} == {to: True for to, _ in doors}
    same, after = ask(open_)
    assert same == pid
    assert after["frames"]["dropped"] > before["frames"]["dropped"]
    refused = {(one["address"], one["port"]) for one in after["refusals"]}
    assert set(doors) <= refused
    assert len(canaries.names.asked) == before_names
    assert knock_inside(open_.host, open_.name, [("tcp", INTERNET, 80)]).popitem()[1] == "beyond"


SIX = """
sudo sysctl -q net.ipv6.conf.eth0.disable_ipv6=0
sudo ip -6 addr add fec0::15/64 dev eth0 nodad && sudo ip -6 route add default via fec0::2 dev eth0
for door in fec0::2/7001 2620:fe::2/7001 2620:fe::9/80; do
    timeout 5 bash -c "exec 3<>/dev/tcp/$door && head -n 1 <&3" 2>/dev/null &
done
wait
sudo ip -6 route del default via fec0::2 dev eth0; sudo ip -6 addr del fec0::15/64 dev eth0
"""


def test_ipv6_leads_nowhere(open_: Running, canaries: Island) -> None:
    """Not even for a guest that gives itself an address and a router."""
    assert knock(canaries.world.host, INTERNET_6, 80) == "beyond6"
    assert open_.sh(SIX).out == ""


def test_names(open_: Running, offline: Running, canaries: Island) -> None:
    """By systemd-resolved's address, which is on the loopback; offline nobody is asked."""
    assert "9.9.9.9" in open_.sh("getent ahostsv4 internet.example").out
    assert open_.sh("getent ahostsv4 nothing.example", check=False).status == 2
    assert {"internet.example", "nothing.example"} <= set(canaries.names.asked)
    canaries.names.asked.clear()
    assert offline.sh("getent ahostsv4 internet.example", check=False).status == 2
    # A program that brings its own name server, by UDP and TCP.
    doors: list[Door] = [("udp", "10.0.2.3", 53), ("tcp", "10.0.2.3", 53), ("udp", INTERNET, 53)]
    assert all(map(is_closed, knock_inside(offline.host, offline.name, doors).values()))
    assert canaries.names.asked == []


def test_offline_has_no_router_and_no_name_server(offline: Running) -> None:
    """Its identity names none, though the network is the same; the login works all the same."""
    assert "default" not in offline.sh("ip route").out
    assert "nameserver" not in offline.sh("cat /etc/resolv.conf").out
    assert offline.value["network"] == "offline"


def test_name_servers_that_change(open_: Running, canaries: Island) -> None:
    """A host that comes to another network: the guest asks the new one's, in the same life."""
    canaries.names.table["moved.example"] = INTERNET
    (canaries.etc / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    other = canaries.etc / "resolv.conf.new"
    other.write_text("# by a careful program\nnameserver 127.0.0.53\n")
    other.replace(canaries.etc / "resolv.conf")
    assert INTERNET in open_.sh("getent ahostsv4 moved.example").out


PARALLEL = r"""
import hashlib, socket, struct, sys, threading
address, count = sys.stdin.read().split()
results = []
def one(number):
    payload = struct.pack(">I", number) * 5000
    with socket.create_connection((address, 80), 120) as it:
        stream = it.makefile("rb")
        greeting = stream.read(7)
        sender = threading.Thread(target=it.sendall, args=(payload,))
        sender.start()
        back = stream.read(len(payload))
        sender.join()
    results.append(greeting == b"beyond\n" and back == payload)
threads = [threading.Thread(target=one, args=(number,)) for number in range(int(count))]
[it.start() for it in threads]
[it.join() for it in threads]
print(sum(results))
"""
ABORTED = r"""
import socket, struct, sys
address, count = sys.stdin.read().split()
them = [socket.create_connection((address, 80), 120) for _ in range(int(count))]
for number, it in enumerate(them):
    it.send(bytes(20000))
    if number % 2:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    it.close()
it = socket.socket()
it.setblocking(False)
it.connect_ex((address, 81))
it.close()
"""
HALF = r"""
import socket, sys
address, port = sys.stdin.read().split()
with socket.create_connection((address, int(port)), 120) as it:
    it.sendall(b"question")
    it.shutdown(socket.SHUT_WR)
    answer = b""
    while part := it.recv(65536):
        answer += part
print(len(answer), set(answer))
"""


def test_fifty_at_once_and_nothing_left_behind(open_: Running, canaries: Island) -> None:
    """No descriptor of the network process stays open, however the connections end."""
    pid, _ = ask(open_)
    echo = canaries.world.echo
    before, connected = descriptors(pid), echo.connections
    assert python(open_.host, open_.name, PARALLEL, f"{INTERNET} 50") == "50\n"
    python(open_.host, open_.name, ABORTED, f"{INTERNET} 40")
    wait_for(lambda: echo.connections == connected, "the connections' end", seconds=120)
    # Fewer it may be: datagrams of earlier tests have sockets for some minutes.
    wait_for(lambda: descriptors(pid) <= before, "their descriptors' end", seconds=60)


def test_half_a_connection_goes_on(open_: Running, canaries: Island) -> None:
    """A guest that has said all it has to say still gets the whole answer."""
    with ExitStack() as stack:
        listener = stack.enter_context(canaries.world.internet.socket())
        listener.bind((INTERNET, 0))
        listener.listen(1)
        heard: list[bytes] = []

        def serve() -> None:
            one, _ = listener.accept()
            with one:
                one.settimeout(120)
                while part := one.recv(100):
                    heard.append(part)
                one.sendall(b"x" * 3_000_000)

        thread = threading.Thread(target=serve)
        thread.start()
        said = python(open_.host, open_.name, HALF, "{} {}".format(*listener.getsockname()))
        thread.join()
    assert b"".join(heard) == b"question"
    assert said == f"3000000 {{{ord('x')}}}\n"


def test_nothing_listens_beyond_loopback(
    open_: Running, offline: Running, canaries: Island
) -> None:
    """Of all that machines have brought to this host, a forward among it."""
    opened = json.loads(open_.host.run("port", "3000", open_.name, "--json").out)
    ours = {f"127.0.0.1:{one.value['ssh']['port']}" for one in (open_, offline)}
    ours.add(f"127.0.0.1:{opened['hostPort']}")
    listening = canaries.listening()
    assert ours <= listening
    assert {one for one in listening if not one.startswith("127.0.0.1:")} == {
        "0.0.0.0:7002", f"{OWN_LAN}:7003", f"{OWN_PUBLIC}:7004", "[::1]:7001",
    }  # fmt: skip
    open_.host.run("port", "close", str(opened["hostPort"]), open_.name)


HARD_OF_HEARING = """
python3 -c '
import os, socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if os.fork() == 0:
    [os.close(fd) for fd in (0, 1, 2)]
    until = time.monotonic() + 100
    while time.monotonic() < until:
        try:
            one.sendto(b"here", ("{address}", {port}))
        except OSError:
            pass
        time.sleep(0.05)
'
cd ~/workspace
sudo sh -c '(for i in $(seq 100); do ip link set eth0 down; sleep 0.5; ip link set eth0 up
    ip route replace default via 10.0.2.2; [ ! -e enough ] || break; sleep 0.5; done
    rm enough) </dev/null >/dev/null 2>&1 &'
"""


def test_a_network_process_that_dies_before_the_guest_has_taken_its_frames(
    open_: Running, canaries: Island
) -> None:
    """QEMU crashes of these if their connection goes first, once in fifteen times or so here.

    So the supervisor holds it, also while it has no time for it.
    """
    qemu = process.identify(open_.value["pid"])
    assert qemu is not None
    with (
        canaries.world.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
        ExitStack() as stack,
    ):
        source.bind((INTERNET, 0))
        port = str(source.getsockname()[1])
        stop = threading.Event()
        thread = threading.Thread(target=_flood, args=(source, stop))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        script = HARD_OF_HEARING.replace("{address}", INTERNET).replace("{port}", port)
        open_.sh(script)
        for seconds in (0, 2, 0):
            _kill(open_, seconds)
    enough = open_.workspace / "enough"
    enough.touch()
    wait_for(lambda: not enough.exists(), "the guest's link to stay")
    assert open_.ssh("echo up again").out == "up again\n"
    assert knock_inside(open_.host, open_.name, [("tcp", INTERNET, 80)]).popitem()[1] == "beyond"
    assert qemu.is_alive()


def _kill(sandbox: Running, seconds: float) -> None:
    """Kill the network process while frames are under way; for so long its supervisor is busy."""
    pid = wait_for(lambda: _floods(sandbox), "frames for the guest", pause=0.1)
    supervisor = sandbox.host.supervisor_pid(sandbox.name)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), "its end")
        time.sleep(seconds)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_for(lambda: _floods(sandbox, but=pid), "the next one's", pause=0.1)


def _flood(source: socket.socket, stop: threading.Event) -> None:
    """Answer whoever has sent the last datagram with many small ones."""
    source.settimeout(0.02)
    peer: tuple[str, int] | None = None
    while not stop.is_set():
        with suppress(OSError):
            peer = source.recvfrom(100)[1]
        if peer is None:
            continue
        for _ in range(200):
            with suppress(OSError):
                source.sendto(b"y", peer)


def _floods(sandbox: Running, but: int = 0) -> int | None:
    """The network process's pid, when it has sent the guest some thousand frames."""
    try:
        pid, status = ask(sandbox)
    except NetworkFailed:
        return None
    return pid if pid != but and status["frames"]["sent"] > 2000 else None


def test_it_ends_with_its_machine(open_: Running) -> None:
    """Nothing is left of it; runs after the others that use this machine."""
    running = launch.attach(open_.host.room_of(open_.name).network_control)
    found = process.identify(running.pid)
    open_.host.run("stop", "--force", open_.name)
    running.control.settimeout(30)
    assert running.control.recv(1) == b""
    wait_for(lambda: found is None or not found.is_alive(), "its end")
    running.control.close()


def test_a_network_process_that_hangs_is_no_obstacle_to_a_stop(offline: Running) -> None:
    """Even one that QEMU waits for; runs last, for it ends the machine."""
    pid, _ = ask(offline)
    os.kill(pid, signal.SIGSTOP)
    try:
        offline.host.run("stop", "--force", offline.name)
    finally:
        os.kill(pid, signal.SIGCONT)
    found = process.identify(pid)
    wait_for(lambda: found is None or not found.is_alive(), "its end")
    status = offline.host.run("status", offline.name, "--json", check=False).out
    assert json.loads(status)["state"] == "stopped"
