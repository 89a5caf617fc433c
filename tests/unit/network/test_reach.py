"""What a guest reaches, with real TCP from end to end: research's table, in open and offline.

Each refusal is worth something only because the host itself gets there: that is asserted beside it.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import pytest

from sandbox_rpc.network.launch import Wish
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.network.settings import Route
from tests.unit.network.lab import (
    BEYOND,
    GUEST,
    INTERNET,
    INTERNET_6,
    NEIGHBOUR,
    OWN_LAN,
    OWN_LATER,
    OWN_PUBLIC,
    RESOLVER,
    SHADOWED,
    Lab,
    descriptors,
    wait_for,
)

CANARIES = [
    (OWN_LAN, 7002, "any"),
    (OWN_PUBLIC, 7002, "any"),
    (OWN_LAN, 7003, "own-lan"),
    (OWN_PUBLIC, 7004, "own-public"),
    *((address, 80, "beyond") for address in BEYOND if address not in (INTERNET, SHADOWED)),
]
"""Address and port, and what answers the host there."""


def assert_the_host_is_out_of_reach(guest: Lab) -> None:
    world = guest.world
    assert guest.knock("127.0.0.1", world.loopback_port, world.host) == "loopback"
    assert guest.knock("::1", 7001, world.host) == "loopback6"
    for address, port, word in CANARIES:
        assert guest.knock(address, port, world.host) == word
        assert guest.knock(address, port) == "refused", address
    for port in (world.loopback_port, 7001, 7002, 22, 53):
        assert guest.knock("10.0.2.2", port) == "refused"
    # Libslirp's address for the host's IPv6 loopback, the host's own, and all forms of mapping.
    for address in ("fec0::2", "2620:fe::2", INTERNET_6, "::ffff:127.0.0.1"):
        assert guest.knock(address, 7001) not in ("loopback6", "any", "beyond6")
    assert guest.knock(SHADOWED, 80, world.host) == "beyond"
    assert guest.knock(SHADOWED, 80) != "beyond"
    assert guest.knock("10.0.2.3", 80) == "refused"
    assert guest.send(OWN_LAN, 7002, world.host) == "any-udp hello"
    for address, port in ((OWN_LAN, 7002), ("10.0.2.2", 7002), (NEIGHBOUR, 80), (RESOLVER, 53)):
        assert guest.send(address, port).startswith(("unreachable", "refused"))


def test_open(guest: Lab) -> None:
    guest.netd(Wish(Mode.OPEN))
    assert_the_host_is_out_of_reach(guest)
    assert guest.knock(INTERNET, 80) == "beyond"
    assert guest.send(INTERNET, 80) == "beyond-udp hello"
    assert guest.send("10.0.2.3", 53) == "resolver hello"
    assert guest.knock("10.0.2.3", 53) == "resolver"
    assert guest.send(INTERNET, 53) == "public-dns hello", "a name server of the internet's own"
    refusals = guest.ask("status")["refusals"]
    assert {"address": NEIGHBOUR, "protocol": "tcp", "port": 80,
            "reason": "a private network", "count": 1} in refusals  # fmt: skip


@pytest.mark.parametrize("mode", [Mode.OFFLINE, Mode.PROXY])
def test_offline_and_proxy(guest: Lab, mode: Mode) -> None:
    ssh = guest.listener()
    guest.netd(Wish(mode), [(ssh, 22)])
    assert_the_host_is_out_of_reach(guest)
    assert guest.knock(INTERNET, 80) == "refused"
    assert guest.knock("10.0.2.3", 53) == "refused"
    assert guest.knock("10.0.2.100", 8888).startswith("unreachable")
    before = len(guest.world.echo.datagrams)
    for address, port in (("10.0.2.3", 53), (INTERNET, 53), (INTERNET, 80)):
        assert guest.send(address, port).startswith(("unreachable", "refused"))
    assert not guest.world.echo.datagrams[before:]
    assert guest.knock("127.0.0.1", ssh.getsockname()[1], guest.world.host) == "ssh"


def test_the_route_to_a_proxy(guest: Lab, tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    path = tmp_path / "proxy" / "proxy.sock"
    guest.netd(Wish(Mode.PROXY, routes=(Route(str(path)),)))
    # It may come later, and again: it is connected to once for each of the guest's connections.
    for word in (b"first\n", b"second\n"):
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(8)
            for _ in range(2):
                with guest.world.guest.socket() as one:
                    one.connect(("10.0.2.100", 8888))
                    listener.settimeout(20)
                    proxy, _ = listener.accept()
                    with proxy:
                        proxy.sendall(word)
                        assert one.recv(100) == word
    assert guest.knock(INTERNET, 80) == "refused"


def test_exceptions(guest: Lab) -> None:
    world = guest.world
    guest.netd(
        Wish(
            Mode.OPEN,
            allow=(f"{NEIGHBOUR}:80", f"{OWN_PUBLIC}:7004", "172.16.0.0/12"),
            host_ports=(world.loopback_port,),
            pins=(("10.9.9.9", 80), (OWN_LAN, 7003)),
        )
    )
    for address, port, word in (
        (NEIGHBOUR, 80, "beyond"), (OWN_PUBLIC, 7004, "own-public"), ("172.16.5.5", 80, "beyond"),
        ("10.0.2.2", world.loopback_port, "loopback"), ("10.9.9.9", 80, "beyond"),
        (OWN_LAN, 7003, "own-lan"),
    ):  # fmt: skip
        assert guest.knock(address, port) == word
    for address, port in ((NEIGHBOUR, 81), (OWN_PUBLIC, 7002), (OWN_LAN, 7002), ("10.0.2.2", 7002),
                          ("10.0.2.2", 7001)):  # fmt: skip
        assert guest.knock(address, port) == "refused"


def say(one: socket.socket) -> None:
    """Send and hear; the acknowledgement of a greeting may have met new rules before that."""
    one.sendall(b"x")
    one.recv(100)


def test_an_address_that_becomes_the_hosts_own(guest: Lab) -> None:
    world = guest.world
    world.internet.ip(f"addr add {OWN_LATER}/32 dev lo")
    guest.netd(Wish(Mode.OPEN))
    one = world.guest.socket()
    one.connect((OWN_LATER, 80))
    assert one.recv(100) == b"beyond\n"
    world.host.ip(f"addr add {OWN_LATER}/32 dev lan")
    try:
        wait_for(lambda: f"{OWN_LATER}/32" in guest.ask("status")["own"], "news of the address")
        assert guest.knock(OWN_LATER, 7002, world.host) == "any"
        assert guest.knock(OWN_LATER, 7002) == "refused"
        with pytest.raises(ConnectionResetError):
            say(one)
    finally:
        world.host.ip(f"addr del {OWN_LATER}/32 dev lan")
        one.close()
    wait_for(lambda: f"{OWN_LATER}/32" not in guest.ask("status")["own"], "news of its end")
    assert guest.knock(OWN_LATER, 80) == "beyond"
    world.internet.ip(f"addr del {OWN_LATER}/32 dev lo")


def test_datagrams_of_strangers_stay_out(guest: Lab) -> None:
    world = guest.world
    guest.netd(Wish(Mode.OPEN))
    with world.guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((GUEST, 5000))
        one.sendto(b"hello", (INTERNET, 80))
        assert one.recv(100) == b"beyond-udp hello"
        listing = world.host.run("ss", "-lunH", "src", "0.0.0.0").split("\n")
        ports = {int(line.split()[3].rpartition(":")[2]) for line in listing if line} - {7002}
        assert len(ports) == 1
        (port,) = ports
        # libslirp's socket takes a datagram of anybody who guesses its port.
        with world.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((NEIGHBOUR, 0))
            stranger.sendto(b"from the LAN", (OWN_LAN, port))
        with world.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"from the host", ("127.0.0.1", port))
        one.sendto(b"again", (INTERNET, 80))
        assert one.recv(100) == b"beyond-udp again"


def test_nothing_listens_beyond_loopback(guest: Lab) -> None:
    world = guest.world
    before = set(world.host.run("ss", "-ltnH").splitlines())
    guest.netd(Wish(Mode.OPEN), [(guest.listener(), 22)])
    assert guest.knock(INTERNET, 80) == "beyond"
    new = [line.split()[3] for line in world.host.run("ss", "-ltnH").splitlines()
           if line not in before]  # fmt: skip
    assert len(new) == 1
    assert all(address.startswith("127.0.0.1:") for address in new)


def test_many_at_once_and_nothing_left_behind(guest: Lab) -> None:
    world = guest.world
    running = guest.netd(Wish(Mode.OPEN))
    assert guest.knock(INTERNET, 80) == "beyond"
    wait_for(lambda: guest.ask("status")["sockets"] == 0, "the first connection's end")
    before = descriptors(running.pid)
    payload = bytes(range(256)) * 400
    results: list[bool] = []

    def one(number: int) -> None:
        mine = struct.pack(">I", number) + payload
        with world.guest.socket() as sock:
            sock.connect((INTERNET, 80))
            assert read(sock, 7) == b"beyond\n"
            sender = threading.Thread(target=sock.sendall, args=(mine,))
            sender.start()
            results.append(read(sock, len(mine)) == mine)
            sender.join()

    # Nodes answer one at a time, so the sockets are made here and used in threads.
    lock = threading.Lock()
    make = world.guest.socket

    def locked(*arguments: int) -> socket.socket:
        with lock:
            return make(*arguments)

    world.guest.socket = locked  # type: ignore[method-assign, assignment]
    try:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        del world.guest.socket
    assert results == [True] * 50
    aborted = []
    for _ in range(50):
        sock = world.guest.socket()
        sock.connect((INTERNET, 80))
        sock.send(payload)
        aborted.append(sock)
    for number, sock in enumerate(aborted):
        if number % 2:
            # A reset in the middle of it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    wait_for(lambda: descriptors(running.pid) == before, "the aborted connections' end")
    assert guest.knock(INTERNET, 80) == "beyond"


def test_half_a_connection_goes_on(guest: Lab) -> None:
    guest.netd(Wish(Mode.OPEN))
    with guest.world.guest.socket() as one, guest.world.internet.socket() as listener:
        listener.bind((INTERNET, 8080))
        listener.listen(1)
        one.connect((INTERNET, 8080))
        other, _ = listener.accept()
        other.settimeout(20)
        one.sendall(b"question")
        one.shutdown(socket.SHUT_WR)
        with other:
            assert read(other, 8) == b"question"
            assert other.recv(1) == b""
            answer = b"answer" * 100_000
            sender = threading.Thread(target=other.sendall, args=(answer,))
            sender.start()
            assert read(one, len(answer)) == answer
            sender.join()
        assert one.recv(1) == b""


def read(one: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := one.recv(size - len(data))):
        data += part
    return bytes(data)
