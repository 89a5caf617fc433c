"""A process is known for good: not the next one with its number, not its zombie."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import anyio
import attrs
import pytest

from sandbox_rpc.host import locks, process
from sandbox_rpc.protocol.errors import ToolMissing


def test_alive_then_zombie_then_gone() -> None:
    """Only a process that runs is alive."""
    child = subprocess.Popen(["sleep", "60"])
    found = process.identify(child.pid)
    assert found is not None
    assert found.is_alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not found.is_alive()  # nobody has waited for it yet: a zombie
    assert found.open() is None
    child.wait()
    assert not found.is_alive()
    assert found.open() is None
    assert process.identify(child.pid) is None
    found.kill()  # and no error


def test_reused_number_is_another_process() -> None:
    """The same pid with another start time, or of another boot, is never signalled."""
    with subprocess.Popen(["sleep", "60"]) as child:
        found = process.identify(child.pid)
        assert found is not None
        for other in (
            attrs.evolve(found, start_ticks=found.start_ticks - 1),
            attrs.evolve(found, boot_id="another"),
        ):
            assert not other.is_alive()
            assert other.open() is None
            other.kill()
            assert child.poll() is None
        found.kill(signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM


def test_end_is_reported_for_what_is_not_our_child() -> None:
    """A supervisor waits for a QEMU that its dead predecessor has started."""
    shell = subprocess.Popen(["sh", "-c", "sleep 60 >&- & echo $!"], stdout=subprocess.PIPE)
    pid = int(shell.communicate(timeout=10)[0])
    found = process.identify(pid)
    assert found is not None

    async def main() -> None:
        descriptor = found.open()
        assert descriptor is not None
        try:
            with anyio.move_on_after(0.1) as early:
                await process.wait_ended(descriptor)
            assert early.cancelled_caught
            found.kill()
            with anyio.fail_after(10):
                await process.wait_ended(descriptor)
        finally:
            os.close(descriptor)

    anyio.run(main)
    assert not found.is_alive()


def test_name_with_blanks_and_brackets(tmp_path: Path) -> None:
    """/proc/PID/stat has the program's name in it, unquoted."""
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        found = process.identify(child.pid)
        try:
            assert found is not None
            assert found.is_alive()
        finally:
            child.kill()


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says what to install."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolMissing) as caught:
        process.find("qemu-img")
    assert caught.value.details == {"tool": "qemu-img", "package": "qemu-utils"}
    assert "apt-get install qemu-utils" in str(caught.value.hint)


def test_run_reports_failure_and_ends_when_cancelled(tmp_path: Path) -> None:
    """No program outlives the call that ran it."""

    async def main() -> None:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await process.run(["sh", "-c", "echo no >&2; exit 3"])
        assert caught.value.returncode == 3
        assert caught.value.stderr == b"no\n"
        done = await process.run(["cat"])
        assert done.stdout == b""
        lock = tmp_path / "lock"
        async with anyio.create_task_group() as group:
            group.start_soon(process.run, ["flock", "--no-fork", str(lock), "sleep", "60"])
            with anyio.fail_after(10):
                while not locks.is_held(lock):
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        # Killed in the moment it was started, it may be dying still.
        with anyio.fail_after(10):
            while locks.is_held(lock):
                await anyio.sleep(0.01)

    anyio.run(main)
