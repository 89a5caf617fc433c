"""The program that gives each SSH connection an sshd of its own, with a shell script as sshd."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_rpc.images.recipe import GUEST

PROGRAM = GUEST / "rootfs" / "trimmed" / "usr" / "local" / "sbin" / "sandbox-sshd"
LIMIT_S = 20


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where it listens; `tmp_path` is its root."""
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "run/sandbox").mkdir(parents=True)
    sshd = tmp_path / "usr/sbin/sshd"
    sshd.write_text(
        '#!/bin/sh\n[ "$*" = -i ] || exit 1\nread line\n'
        'echo "$$ $line ${LISTEN_FDS:-none} $(ls /proc/self/fd | wc -w)"\nsleep 1 & wait $!\n'
        'echo "ended $?"\n'
    )
    sshd.chmod(0o755)
    perl = shutil.which("perl")
    assert perl is not None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        descriptor = listener.fileno()
        # systemd's way: the socket is descriptor 3.
        process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{descriptor} {descriptor}<&- "$@"', "bash", perl, PROGRAM],
            env={"SANDBOX_AGENT_ROOT": str(tmp_path), "LISTEN_FDS": "1", "PATH": "/usr/bin:/bin"},
            pass_fds=[descriptor], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        number = int(listener.getsockname()[1])
    try:
        yield number
    finally:
        process.kill()
        process.wait()


def ask(port: int, text: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), LIMIT_S)
    connection.sendall(f"{text}\n".encode())
    return connection


def test_who_comes_early_waits(port: int, tmp_path: Path) -> None:
    """Refused by nobody, served when there is an identity."""
    early = ask(port, "early")
    early.settimeout(0.3)
    with pytest.raises(TimeoutError):
        early.recv(1)
    (tmp_path / "run/sandbox/identified").touch()
    early.settimeout(LIMIT_S)
    with early, early.makefile() as answers:
        assert answers.readline().split()[1] == "early"


def test_each_connection_has_a_process_of_its_own(port: int, tmp_path: Path) -> None:
    """At the same time, with nothing of systemd's and no other descriptor, able to wait for its
    children."""
    (tmp_path / "run/sandbox/identified").touch()
    began = time.monotonic()
    connections = [ask(port, str(number)) for number in range(5)]
    pids = set()
    for number, connection in enumerate(connections):
        connection.settimeout(LIMIT_S)
        with connection, connection.makefile() as answers:
            pid, text, descriptors, count = answers.readline().split()
            assert (text, descriptors) == (str(number), "none")
            assert int(count) <= 4
            pids.add(pid)
            assert answers.readline() == "ended 0\n"
            assert answers.readline() == ""
    assert len(pids) == 5
    assert time.monotonic() - began < 5
