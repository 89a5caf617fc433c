#!/usr/bin/env python3
"""What the service costs: its start, a round trip, consoles, a second command, memory.

.venv/bin/python bench/service.py [FOLDER]

With a FOLDER its sandbox is started (where it does not run) and stopped again; without, what needs
a virtual machine is left out. All figures of one run stand side by side.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import report

from sandbox_rpc.client import Client
from sandbox_rpc.protocol import streams as s
from sandbox_rpc.protocol import types as t

ROUNDS = 9
TRIPS = 400
CONSOLE_MIB = 16


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spawn() -> list[str]:
    """Spawn to `initialize` answered, against the import alone."""
    ours, base = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        client = Client()
        ours.append(time.perf_counter() - began)
        client.close()
        command = [sys.executable, "-c", "import pygls.server"]
        base.append(seconds(lambda command=command: subprocess.run(command, check=True)))
    ratio = sorted(a / b for a, b in zip(ours, base, strict=True))[ROUNDS // 2]
    return [
        "spawn to `initialize` answered, s",
        report.spread(ours, 2),
        f"`import pygls.server`: {report.spread(base, 2)}; ratio {ratio:.2f}",
    ]


def trips(client: Client, params: dict[str, str], what: str) -> list[str]:
    """Round trips of `sandbox/status`."""
    took = [
        1000 * seconds(lambda: client.request_raw("sandbox/status", params)) for _ in range(TRIPS)
    ]
    took.sort()
    return [
        f"`sandbox/status` of {what}, ms",
        f"p50 {took[TRIPS // 2]:.2f}",
        f"p95 {took[TRIPS * 95 // 100]:.2f}, {TRIPS} in a row",
    ]


class Reader:
    """A client that follows a console and counts."""

    def __init__(self, name: str, *, offset: int) -> None:
        self.client = Client()
        self.bytes = 0
        self.begun = offset
        self.gap = False
        self.client.listen(self._hear)
        self.client.request_raw("console/attach", {"name": name, "stream": "s", "offset": offset})

    def _hear(self, method: str, value: object) -> None:
        if isinstance(value, s.ConsoleOutput):
            self.gap |= value.offset != self.begun + self.bytes
            self.bytes += len(base64.b64decode(value.data))


def console(sandbox: t.Sandbox, readers: int, *, stopped: bool) -> list[str]:
    """Console output through the service, read by several clients, perhaps one that stops."""
    assert sandbox.console_log is not None
    log = Path(sandbox.console_log)
    offset = log.stat().st_size
    following = [Reader(sandbox.name, offset=offset) for _ in range(readers)]
    lazy: subprocess.Popen[bytes] | None = None
    if stopped:
        lazy = _deaf(sandbox.name, offset)
    amount = CONSOLE_MIB << 20
    began = time.perf_counter()

    def print_in_guest() -> None:
        # Straight into the log's place: a guest under emulation prints slower than we read.
        with log.open("ab") as file:
            for _ in range(amount >> 16):
                file.write(b"x" * (1 << 16))
                file.flush()

    thread = threading.Thread(target=print_in_guest)
    thread.start()
    while any(one.bytes < amount for one in following):
        if time.perf_counter() - began > 120:
            break
        time.sleep(0.005)
    took = time.perf_counter() - began
    thread.join()
    lost = sum(amount - one.bytes for one in following)
    gaps = sum(one.gap for one in following)
    for one in following:
        one.client.close()
    if lazy is not None:
        lazy.kill()
        lazy.wait()
    return [
        f"console, {readers} reader(s){', one more that stopped' if stopped else ''}, MiB/s each",
        f"{CONSOLE_MIB / took:.0f}",
        f"{lost} bytes lost, {gaps} gaps",
    ]


def _deaf(name: str, offset: int) -> subprocess.Popen[bytes]:
    """A service whose client attaches and never reads again."""
    import json

    def frame(message: dict[str, object]) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        return b"Content-Length: %d\r\n\r\n" % len(body) + body

    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox_rpc", "--stdio"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    params = {"name": name, "stream": "deaf", "offset": offset}
    process.stdin.write(frame({"id": 1, "method": "initialize", "params": {}}))
    process.stdin.write(frame({"id": 2, "method": "console/attach", "params": params}))
    process.stdin.flush()
    return process


def commands(client: Client, sandbox: t.Sandbox) -> list[list[str]]:
    """A second command through the service, against ssh with and without a shared connection."""
    assert sandbox.ssh is not None
    first = seconds(lambda: client.exec(sandbox.name, ["true"]))
    again = [seconds(lambda: client.exec(sandbox.name, ["true"])) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        shared = [
            "ssh", "-F", sandbox.ssh.config_file, "-o", f"ControlPath={folder}/c",
            "-o", "ControlMaster=auto", "-o", "ControlPersist=60", sandbox.ssh.alias,
        ]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*shared, "true"], check=True, **quiet)  # type: ignore[call-overload]
        master = [
            seconds(lambda: subprocess.run([*shared, "true"], check=True)) for _ in range(ROUNDS)
        ]
        subprocess.run([*shared[:-1], "-O", "exit", shared[-1]], check=False, **quiet)  # type: ignore[call-overload]
    alone = ["ssh", "-F", sandbox.ssh.config_file, sandbox.ssh.alias, "true"]
    new = [seconds(lambda: subprocess.run(alone, check=True)) for _ in range(3)]
    return [
        ["first `sandbox/exec` of a connection, s", f"{first:.2f}", "with the SSH login"],
        [
            "second `sandbox/exec`, s",
            report.spread(again, 3),
            f"ssh with a shared connection: {report.spread(master, 3)}; "
            f"a new ssh: {report.spread(new, 2)}",
        ],
    ]


def memory(client: Client) -> list[str]:
    """What the service holds."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{client.pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    rss, pss = (int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss"))
    return ["service process, MiB", f"{rss:.0f} resident", f"{pss:.0f} proportional"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="folder whose sandbox to use")
    folder = parser.parse_args().folder
    print(report.conditions(), "\n")
    rows = [spawn()]
    with Client() as client:
        rows.append(trips(client, {"workspace": "/"}, "a folder without sandbox"))
        if folder is not None:
            sandbox = client.start(folder)
            rows.append(trips(client, {"name": sandbox.name}, "a running sandbox"))
            rows += commands(client, sandbox)
            rows.append(console(sandbox, 1, stopped=False))
            rows.append(console(sandbox, 3, stopped=True))
        rows.append(memory(client))
        if folder is not None:
            client.stop(sandbox.name)
    print(report.table(["what", "measured", "beside it"], rows))


if __name__ == "__main__":
    main()
