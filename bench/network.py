"""Throughput, latency and processor time of the network process, beside QEMU's own user networking.

    python bench/network.py [--rounds N] [--seconds S]

No machine is booted: the guest is a network namespace with a tap, whose frames QEMU carries with
the code that carries a machine's. So the numbers are those of the network alone, without the
guest's virtio, which is the same in all of them. Needs /dev/net/tun and user namespaces.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report

from sandbox_rpc.network.launch import Wish
from sandbox_rpc.network.policy import Mode
from tests.unit.network.lab import GUEST, INTERNET, QEMU, World, alive, lab, wait_for

CHUNK = 1 << 18
PORTS = {"up": 9001, "down": 9002, "answer": 9003}
TICK = os.sysconf("SC_CLK_TCK")


def serve(world: World) -> list[int]:
    """Servers of the internet, each a process of its own; their pids."""

    def up(one: socket.socket) -> None:
        buffer = bytearray(CHUNK)
        while one.recv_into(buffer):
            pass

    def down(one: socket.socket) -> None:
        data = bytes(CHUNK)
        while True:
            one.sendall(data)

    def answer(one: socket.socket) -> None:
        while data := one.recv(4096):
            one.sendall(data)

    pids = []
    for name, work in (("up", up), ("down", down), ("answer", answer)):
        listener = world.internet.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((INTERNET, PORTS[name]))
        listener.listen(16)
        listener.settimeout(None)
        if (pid := os.fork()) == 0:
            _serve_forever(listener, work)
        pids.append(pid)
        listener.close()
    return pids


def _serve_forever(listener: socket.socket, work: Callable[[socket.socket], None]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        one, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                work(one)
            finally:
                os._exit(0)
        one.close()


def spent(pids: list[int]) -> float:
    """Seconds of processor time of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


@contextmanager
def by_netd(world: World, mtu: int) -> Iterator[list[int]]:
    """A guest behind the network process; the processes at work."""
    with tempfile.TemporaryDirectory() as folder, lab(world, Path(folder), mtu) as one:
        running = one.netd(Wish(Mode.OPEN))
        yield [one.qemu.pid, running.pid]


@contextmanager
def by_slirp(world: World, mtu: int) -> Iterator[list[int]]:
    """A guest behind QEMU's own stack, in the host's namespace."""
    tap = world.guest.tap("eth0")
    qemu = subprocess.Popen(
        [
            "nsenter", "--target", str(world.host.pid), "--user", "--preserve-credentials", "--net",
            QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-no-user-config",
            "-netdev", f"tap,id=tap,fd={tap}", "-netdev", "user,id=peer,ipv6=off",
            "-netdev", "hubport,id=a,hubid=0,netdev=tap",
            "-netdev", "hubport,id=b,hubid=0,netdev=peer",
        ],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[tap],
    )  # fmt: skip
    os.close(tap)
    try:
        time.sleep(1)
        world.guest.ip(f"link set eth0 mtu {mtu} up")
        world.guest.ip(f"addr add {GUEST}/24 dev eth0")
        world.guest.ip("route add default via 10.0.2.2")
        yield [qemu.pid]
    finally:
        qemu.kill()
        qemu.wait()
        wait_for(lambda: "eth0" not in world.guest.ip("-br link"), "the tap's end")


def rate(world: World, way: str, seconds: float, pids: list[int]) -> tuple[float, float]:
    """MB/s in one direction, and seconds of processor time for each 100 MB."""
    with world.guest.socket() as one:
        one.connect((INTERNET, PORTS[way]))
        buffer = bytearray(CHUNK)
        moved = 0
        began, work = time.monotonic(), spent(pids)
        while (now := time.monotonic()) < began + seconds:
            moved += one.send(buffer) if way == "up" else one.recv_into(buffer)
        work = spent(pids) - work
    return moved / (now - began) / 1e6, work / (moved / 1e8)


def delays(world: World, times: int) -> tuple[float, float]:
    """Median ms of an answer on an open connection, and of connecting and an answer."""
    answers, connects = [], []
    with world.guest.socket() as one:
        one.connect((INTERNET, PORTS["answer"]))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            began = time.monotonic()
            one.sendall(b"x")
            one.recv(16)
            answers.append(time.monotonic() - began)
    for _ in range(times):
        one = world.guest.socket()
        began = time.monotonic()
        with one:
            one.connect((INTERNET, PORTS["answer"]))
            one.sendall(b"x")
            one.recv(16)
            connects.append(time.monotonic() - began)
    return statistics.median(answers) * 1e3, statistics.median(connects) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    conditions = report.conditions()
    world = World()
    servers = serve(world)
    ways: dict[str, Callable[[], object]] = {
        "QEMU's slirp, MTU 1500": lambda: by_slirp(world, 1500),
        "network process, MTU 1500": lambda: by_netd(world, 1500),
        "network process, MTU 9000": lambda: by_netd(world, 9000),
    }
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    try:
        for number in range(options.rounds):
            for name, make in ways.items():
                with make() as pids:  # type: ignore[attr-defined]
                    up = rate(world, "up", options.seconds, pids)
                    down = rate(world, "down", options.seconds, pids)
                    found[name].append((*up, *down, *delays(world, 300)))
                    if len(pids) > 1:
                        memory[name] = resident(pids[1])
                last = found[name][-1]
                print(f"{number + 1} {name}: {last[0]:.0f} up, {last[2]:.0f} down", file=sys.stderr)
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        world.stop()
        wait_for(lambda: not alive(world.host.pid), "the namespaces' end")
    print(f"{conditions} {options.rounds} interleaved rounds, {options.seconds:g} s each way.\n")
    rows = []
    base = [statistics.median(column) for column in zip(*next(iter(found.values())), strict=True)]
    for name, rounds in found.items():
        columns = list(zip(*rounds, strict=True))
        middle = [statistics.median(column) for column in columns]
        rows.append(
            [
                name,
                f"{report.spread(columns[0], 0)}, {middle[0] / base[0]:.2f}",
                f"{report.spread(columns[2], 0)}, {middle[2] / base[2]:.2f}",
                f"{middle[1]:.2f} / {middle[3]:.2f}",
                f"{middle[4]:.2f}",
                f"{middle[5]:.2f}",
                f"{memory[name]}" if name in memory else "",
            ]
        )
    head = ["Way", "Up, MB/s, ratio", "Down, MB/s, ratio", "CPU s per 100 MB, up / down",
            "Answer, ms", "Connect and answer, ms", "Resident, MiB"]  # fmt: skip
    print(report.table(head, rows))


def resident(pid: int) -> int:
    """MiB of memory a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main()
