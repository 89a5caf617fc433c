"""The proxy beside tinyproxy in the configuration of the tool this one goes back to.

    python bench/proxy.py [--rounds N] [--requests N] [--mib N]

Each request is a tunnel by CONNECT, a ClientHello in it, and an answer of 200 bytes; then bytes go
down one tunnel. Both are asked by the same program, in the same run, in turns. Ours runs in its
box, audits and looks at each ClientHello; tinyproxy, with `LogLevel Info`, writes its log into a
file. Needs tinyproxy (Debian: tinyproxy-bin); processor time is that of the proxy's process.

tinyproxy calls fsync after each line of its log, five or so for each request, so what it can do
depends on the disk: the bench says what an fsync takes here. `--fsync-ms N` adds one more row, for
a disk on which it takes that long (by a library that is preloaded; needs cc). We call none.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report

from sandbox_rpc.network.proxy import launch
from sandbox_rpc.network.proxy.settings import Pin, Wish
from tests.unit.network.proxy.test_hello import message, records, server_name

HOST = "localhost"
HELLO = records(message(server_name(HOST.encode())), [])
ANSWER = b"x" * 200
CONCURRENCY = 200
TICK = os.sysconf("SC_CLK_TCK")
SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    usleep(MICROSECONDS);
    return real(fd);
}
"""
CONFIGURATION = """\
Port {port}
Listen 127.0.0.1
Timeout 600
LogFile "{folder}/tinyproxy.log"
LogLevel Info
PidFile "{folder}/tinyproxy.pid"
MaxClients 100
Filter "{folder}/filter"
FilterExtended On
FilterCaseSensitive Off
FilterDefaultDeny Yes
ConnectPort {origin}
"""
"""As the seed writes it, but for the port of this bench's own server."""
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def serve(listener: socket.socket) -> None:
    """The server behind both: an answer to a hello, or so many bytes as its last line says."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(HELLO))
            count = int.from_bytes(await reader.readexactly(8), "big")
            if not count:
                writer.write(ANSWER)
            data = bytes(1 << 20)
            while count > 0:
                writer.write(data[:count])
                count -= len(data)
                await writer.drain()
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(attend, sock=listener, backlog=1024)
        await server.serve_forever()

    asyncio.run(main())


async def fetch(connect: Connect, place: bytes | None, count: int) -> int:
    """One request through a proxy, or direct; bytes of the answer."""
    reader, writer = await connect()
    try:
        if place is not None:
            writer.write(b"CONNECT " + place + b" HTTP/1.1\r\nHost: " + place + b"\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise RuntimeError(head.decode())
        writer.write(HELLO + count.to_bytes(8, "big"))
        if not count:
            return len(await reader.readexactly(len(ANSWER)))
        found = 0
        while data := await reader.read(1 << 18):
            found += len(data)
        return found
    finally:
        writer.close()


async def many(connect: Connect, place: bytes | None, requests: int) -> float:
    """Requests per second, 200 at a time."""
    left = requests

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await fetch(connect, place, 0)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return requests / (time.perf_counter() - began)


async def one_by_one(connect: Connect, place: bytes | None, requests: int) -> float:
    """Median of a request alone, in ms."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        await fetch(connect, place, 0)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


async def bulk(connect: Connect, place: bytes | None, mib: int) -> float:
    """MiB per second down one tunnel."""
    began = time.perf_counter()
    found = await fetch(connect, place, mib << 20)
    assert found == mib << 20, found
    return mib / (time.perf_counter() - began)


def seconds_of(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid: int) -> float:
    """MiB in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


@contextmanager
def origin() -> Iterator[int]:
    """The server, a process of its own; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            serve(listener)
        finally:
            os._exit(0)
    try:
        yield int(listener.getsockname()[1])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        listener.close()


@contextmanager
def ours(folder: Path, port: int) -> Iterator[tuple[int, Connect]]:
    """Our proxy, as a supervisor starts it."""
    for name in ("rules", "journal"):
        (folder / name).mkdir()
    (folder / "rules" / "allowlist.txt").write_text(f"{HOST}:{port}\n")
    path = folder / "proxy.sock"
    listener = launch.listen(path)
    wish = Wish(str(folder / "rules"), str(folder / "journal"), (Pin(HOST, port, ("127.0.0.1",)),))
    running = launch.launch(
        wish, listener=listener, machine=-1, control_socket=folder / "control.sock",
        log=folder / "proxy.log",
    )  # fmt: skip
    try:
        yield running.pid, lambda: asyncio.open_unix_connection(str(path), limit=1 << 20)
    finally:
        os.kill(running.pid, signal.SIGTERM)
        running.control.settimeout(10)
        running.control.recv(1)
        running.control.close()
        listener.close()


@contextmanager
def tinyproxy(
    folder: Path, port: int, level: str, fsync_ms: float = 0
) -> Iterator[tuple[int, Connect]]:
    """tinyproxy as the seed runs it, or with another level of its log, or on a slower disk."""
    program = shutil.which("tinyproxy")
    if program is None:
        sys.exit("tinyproxy is missing (Debian: apt-get install tinyproxy-bin)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    text = CONFIGURATION.format(port=own, folder=folder, origin=port)
    (folder / "tinyproxy.conf").write_text(text.replace("LogLevel Info", f"LogLevel {level}"))
    (folder / "filter").write_text(f"^{HOST}$\n")
    environment = {**os.environ, **({"LD_PRELOAD": slow(folder, fsync_ms)} if fsync_ms else {})}
    child = subprocess.Popen(
        [program, "-d", "-c", str(folder / "tinyproxy.conf")],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            try:
                socket.create_connection(("127.0.0.1", own)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield child.pid, lambda: asyncio.open_connection("127.0.0.1", own, limit=1 << 20)
    finally:
        child.kill()
        child.wait()


def slow(folder: Path, fsync_ms: float) -> str:
    """A library that makes fsync take longer; its path."""
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW)
    words = ["cc", "-shared", "-fPIC", f"-DMICROSECONDS={int(1000 * fsync_ms)}"]
    subprocess.run([*words, "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


def fsync_here(folder: str) -> float:
    """What an fsync of a line takes, in ms; median."""
    times = []
    with Path(folder, "line").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 100)
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


Figures = dict[str, list[float]]


def measure(name: str, pid: int | None, connect: Connect, place: bytes | None,
            options: argparse.Namespace, found: dict[str, Figures]) -> None:  # fmt: skip
    """One turn of one of them."""
    figures = found.setdefault(name, {})
    before = seconds_of(pid) if pid else 0.0
    rate = asyncio.run(many(connect, place, options.requests))
    middle = seconds_of(pid) if pid else 0.0
    alone = asyncio.run(one_by_one(connect, place, 200))
    start = seconds_of(pid) if pid else 0.0
    flow = asyncio.run(bulk(connect, place, options.mib))
    end = seconds_of(pid) if pid else 0.0
    for key, value in (
        ("rate", rate), ("alone", alone), ("flow", flow),
        ("cpu_request", 1000 * (middle - before) / options.requests),
        ("cpu_gib", (end - start) * 1024 / options.mib),
        ("resident", resident(pid) if pid else 0.0),
    ):  # fmt: skip
        figures.setdefault(key, []).append(value)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--fsync-ms", type=float, default=0.0)
    options = parser.parse_args()
    print(report.conditions(), "\n")
    found: dict[str, Figures] = {}
    # The seed's file lies on a disk, not in memory: so does ours.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top, origin() as port:
        place = f"{HOST}:{port}".encode()
        print(f"fsync of a line takes {fsync_here(top):.2f} ms here\n")
        extra = f"tinyproxy, the seed's, fsync {options.fsync_ms:g} ms"

        def direct() -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
            return asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

        for number in range(options.rounds):
            measure("no proxy", None, direct, None, options, found)
            for name, start in (
                ("ours", lambda folder: ours(folder, port)),
                ("tinyproxy, the seed's", lambda folder: tinyproxy(folder, port, "Info")),
                ("tinyproxy, no log", lambda folder: tinyproxy(folder, port, "Critical")),
                (extra, lambda folder: tinyproxy(folder, port, "Info", options.fsync_ms)),
            ):
                if name == extra and not options.fsync_ms:
                    continue
                folder = Path(top, f"{number}-{name.replace(' ', '')}")
                folder.mkdir()
                with start(folder) as (pid, connect):
                    measure(name, pid, connect, place, options, found)
    rows = [
        [
            name, report.spread(figures["rate"], 0), report.spread(figures["alone"], 2),
            report.spread(figures["flow"], 0), report.spread(figures["cpu_request"], 2),
            report.spread(figures["cpu_gib"], 2), report.spread(figures["resident"], 0),
        ]
        for name, figures in found.items()
    ]  # fmt: skip
    head = ["", "requests/s, 200 at once", "one alone, ms", "MiB/s", "CPU ms/request", "CPU s/GiB",
            "resident, MiB"]  # fmt: skip
    print(report.table(head, rows))
    for name in ("tinyproxy, the seed's", extra):
        for what, key in (("requests", "rate"), ("bytes", "flow")):
            if name in found:
                mine, other = found["ours"][key], found[name][key]
                ratio = statistics.median(mine) / statistics.median(other)
                print(f"\n{what}: {ratio:.1f} times {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
