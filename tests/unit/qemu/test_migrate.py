"""A machine's state out of one real QEMU and into another; no guest runs in them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.protocol.errors import QemuFailed, TemplateInvalid
from sandbox_rpc.qemu import migrate, qmp
from sandbox_rpc.qemu.box import SECCOMP
from sandbox_rpc.qemu.capabilities import BOARDS, host_arch
from sandbox_rpc.qemu.qmp import Qmp, QmpError

MEMORY = 64
MARK = b"what the guest had in its memory"
AT = 48 << 20


class Machines:
    """QEMUs of one kind on one memory file."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.memory = folder / "memory"
        with self.memory.open("wb") as file:
            file.truncate(MEMORY << 20)
        self._stack = stack

    def start(self, *options: str, share: bool) -> tuple[subprocess.Popen[bytes], Path]:
        """One that is paused from the beginning, with our seccomp filter."""
        path = self.folder / f"qmp.{len(list(self.folder.iterdir()))}"
        listening = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen(1)
        arch = host_arch()
        backend = f"memory-backend-file,id=m,size={MEMORY}M,mem-path={self.memory}"
        process = subprocess.Popen(
            [
                f"qemu-system-{arch}", "-nodefaults", "-display", "none", "-accel", "tcg",
                "-machine", f"{BOARDS[arch]},memory-backend=m", "-m", f"{MEMORY}M", "-S",
                "-object", f"{backend},share={'on' if share else 'off'}",
                "-chardev", f"socket,id=q,fd={listening.fileno()},server=on,wait=off",
                "-mon", "chardev=q,mode=control", *options, *SECCOMP,
            ],
            pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process, path


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(tmp_path, stack)


def converse(path: Path, scene: Callable[[Qmp], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                await scene(await qmp.connect(path, group))
                group.cancel_scope.cancel()

    try:
        anyio.run(main)
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None


def saved(machines: Machines, *options: str) -> bytes:
    """The state of a machine whose memory has our mark in it."""
    process, path = machines.start(*options, share=True)
    states: list[bytes] = []

    async def scene(session: Qmp) -> None:
        states.append(await migrate.save(session))
        assert (await session.execute("query-status"))["status"] == "postmigrate"

    converse(path, scene)
    process.kill()
    process.wait()
    with machines.memory.open("r+b") as file:
        file.seek(AT)
        file.write(MARK)
    return states[0]


def pipes() -> set[str]:
    """The pipes that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(path.readlink()))
    return {one for one in found if one.startswith("pipe:")}


def test_state_and_memory_come_over(machines: Machines, tmp_path: Path) -> None:
    """The memory by its file, the rest by the state, which is therefore small."""
    state = saved(machines)
    assert 10_000 < len(state) < MEMORY << 19
    before = pipes()
    _, path = machines.start("-incoming", "defer", share=False)
    seen = tmp_path / "seen"

    async def scene(session: Qmp) -> None:
        assert (await session.execute("query-status"))["status"] == "inmigrate"
        await migrate.load(session, state)
        assert (await session.execute("query-status"))["status"] == "prelaunch"
        await session.execute("pmemsave", val=AT, size=len(MARK), filename=str(seen))

    converse(path, scene)
    assert seen.read_bytes() == MARK
    assert pipes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: b"no state at all",
        lambda state: state[: len(state) // 2] + bytes(len(state) // 2),
        lambda state: state[:200].replace(b"memory", b"rammem") + b"\xff" * 5000,
    ],
)
def test_a_state_that_is_none_fails(machines: Machines, damage: Callable[[bytes], bytes]) -> None:
    state = damage(saved(machines))
    _, path = machines.start("-incoming", "defer", share=False)

    async def scene(session: Qmp) -> None:
        with pytest.raises((TemplateInvalid, QemuFailed, QmpError)):
            await migrate.load(session, state)

    converse(path, scene)


def test_a_state_of_other_hardware_fails(machines: Machines) -> None:
    """It speaks of a device that this machine does not have."""
    state = saved(machines, "-device", "virtio-rng-pci")
    _, path = machines.start("-incoming", "defer", share=False)

    async def scene(session: Qmp) -> None:
        with pytest.raises((TemplateInvalid, QemuFailed, QmpError)):
            await migrate.load(session, state)

    converse(path, scene)


def test_a_machine_that_ends_meanwhile(machines: Machines) -> None:
    process, path = machines.start(share=True)

    async def scene(session: Qmp) -> None:
        process.kill()
        process.wait()
        with pytest.raises(QemuFailed):
            await migrate.save(session)

    converse(path, scene)
