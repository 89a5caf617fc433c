"""Running a build's tools: log, errors, progress, and that nothing outlives a cancel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.images import bootstrap
from sandbox_rpc.protocol.errors import BuildFailed, DiskFull


@pytest.fixture
def log(tmp_path: Path) -> bootstrap.Log:
    return bootstrap.Log(tmp_path / "build.log")


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def run(log: bootstrap.Log, lock: int, script: str, *, lines: list[str] | None = None) -> None:
    seen: list[str] = [] if lines is None else lines

    async def main() -> None:
        await bootstrap.run(["sh", "-c", script], log, lock=lock, line=seen.append)

    anyio.run(main)


def test_both_streams_are_logged_and_reported_line_by_line(log: bootstrap.Log, lock: int) -> None:
    lines: list[str] = []
    run(log, lock, "echo one; echo two >&2; printf 'three'", lines=lines)
    assert lines == ["one", "two", "three"]
    assert log.path.read_text().splitlines()[1:] == lines


def test_a_failure_carries_the_last_lines_and_the_log(log: bootstrap.Log, lock: int) -> None:
    with pytest.raises(BuildFailed, match="the reason") as caught:
        run(log, lock, "seq 1 100; echo the reason; exit 7")
    assert "status 7" in caught.value.message
    assert "\n1\n" not in caught.value.message
    assert caught.value.details["log"] == str(log.path)


@pytest.mark.parametrize(
    "said",
    [
        "cp: error writing 'x': No space left on device",
        "dpkg: error: Disk quota exceeded",
        "E: You don't have enough free space in /var/cache/apt/archives/.",
    ],
)
def test_a_full_disk_is_called_so(log: bootstrap.Log, lock: int, said: str) -> None:
    with pytest.raises(DiskFull):
        run(log, lock, f'echo "{said}" >&2; exit 1')


def test_a_very_long_line_is_cut_in_the_log(log: bootstrap.Log, lock: int) -> None:
    run(log, lock, f"{sys.executable} -c 'print(\"x\" * 100000)'")
    assert max(map(len, log.path.read_text().splitlines())) < 1000


def test_cancelling_ends_the_tool_and_its_children(
    log: bootstrap.Log, lock: int, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(tool)
            while len(pids.read_text().split() if pids.exists() else []) < 2:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    async def tool() -> None:
        script = f"sleep 1000 & echo $! > {pids}; echo $$ >> {pids}; wait"
        await bootstrap.run(["sh", "-c", script], log, lock=lock)

    anyio.run(main)
    child, leader = pids.read_text().split()
    assert state(leader) == ""
    assert state(child) in ("", "Z", "X")


def state(pid: str) -> str:
    """A process's state letter; empty where it is gone. Z or X until init has collected it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_tool_inherits_the_lock(log: bootstrap.Log, lock: int) -> None:
    run(log, lock, f"test -e /proc/self/fd/{lock}")


def test_progress_grows_from_start_to_end() -> None:
    steps = bootstrap.Steps()
    said = []
    text = ["I: running apt-get update...", "Get:1 http://mirror.example.org InRelease [1 kB]"]
    for count in (60, 140):
        text += [f"0 upgraded, {count} newly installed, 0 to remove and 0 not upgraded."]
        for verb in ("Get:{} x", "Unpacking p{} (1) ...", "Setting up p{} (1) ..."):
            text += [verb.format(n) for n in range(count)]
    text += ["I: running --customize-hook in shell: sh", "I: cleaning package lists"]
    for line in text:
        steps.line(line)
        said.append(steps.fraction)
    assert said == sorted(said)
    assert said[1] == 0
    assert 0.2 < said[len(said) // 3] < 0.45
    assert 0.9 <= said[-1] <= 1


def test_progress_speaks_only_when_there_is_something_new() -> None:
    steps = bootstrap.Steps()
    steps.line("0 upgraded, 10000 newly installed")
    assert steps.line("Unpacking a (1) ...")
    assert not steps.line("Unpacking b (1) ...")
    assert not steps.line("debconf: something else")
