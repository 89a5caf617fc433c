"""QMP against a real QEMU that has no machine: milliseconds, and no fake to keep true."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.protocol.errors import QemuFailed
from sandbox_rpc.qemu import qmp
from sandbox_rpc.qemu.capabilities import host_arch
from sandbox_rpc.qemu.qmp import QmpError


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A QEMU with a control socket; ended whatever happens."""
    import socket

    path = tmp_path / "qmp.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)
    process = subprocess.Popen(
        [
            f"qemu-system-{host_arch()}", "-machine", "none", "-nodefaults", "-display", "none",
            "-chardev", f"socket,id=q,fd={listening.fileno()},server=on,wait=off",
            "-mon", "chardev=q,mode=control",
        ],
        pass_fds=[listening.fileno()],
    )  # fmt: skip
    listening.close()
    try:
        yield process, path
    finally:
        process.kill()
        process.wait()


def test_commands_errors_and_the_end(qemu: tuple[subprocess.Popen[bytes], Path]) -> None:
    """Answers come by id, refusals as QmpError, and QEMU's end fails who waits."""
    process, path = qemu

    async def main() -> None:
        async with anyio.create_task_group() as group:
            session = await qmp.connect(path, group)
            assert (await session.execute("query-status"))["status"] == "running"
            with pytest.raises(QmpError) as refused:
                await session.execute("no-such-command")
            assert refused.value.kind == "CommandNotFound"
            names: list[str] = []

            async def one(command: str) -> None:
                await session.execute(command)
                names.append(command)

            async with anyio.create_task_group() as many:
                for command in ("query-version", "query-name", "query-kvm") * 5:
                    many.start_soon(one, command)
            assert len(names) == 15
            await session.execute("quit")
            reasons = [
                event["data"]["reason"]
                async for event in session.events
                if event["event"] == "SHUTDOWN"
            ]
            assert reasons == ["host-qmp-quit"]
            assert not session.is_open
            with pytest.raises(QemuFailed):
                await session.execute("query-status")

    anyio.run(main)
    assert process.wait(10) == 0


def test_killed_while_waiting(qemu: tuple[subprocess.Popen[bytes], Path]) -> None:
    """A command under way ends with QemuFailed when QEMU is killed."""
    process, path = qemu

    async def main() -> None:
        async with anyio.create_task_group() as group:
            session = await qmp.connect(path, group)
            os.kill(process.pid, 19)  # SIGSTOP: it cannot answer any more
            async with anyio.create_task_group() as waiting:

                async def ask() -> None:
                    with pytest.raises(QemuFailed):
                        await session.execute("query-status")

                waiting.start_soon(ask)
                await anyio.sleep(0.05)
                process.kill()

    anyio.run(main)


def test_nobody_there(tmp_path: Path) -> None:
    """A socket that does not exist is QEMU's failure, not an OSError."""

    async def main() -> None:
        async with anyio.create_task_group() as group:
            with pytest.raises(QemuFailed):
                await qmp.connect(tmp_path / "none.sock", group)

    anyio.run(main)
