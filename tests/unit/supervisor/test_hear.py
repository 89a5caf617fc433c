"""When a guest may reset itself before its first word; QEMU's other versions cannot be had here."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import define, field

from sandbox_rpc.protocol.errors import QemuFailed
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.supervisor import hear
from sandbox_rpc.supervisor.hear import first_word

KVM, TCG = Accelerator.KVM, Accelerator.TCG


@define
class Guest:
    """As much of a machine as is asked; it stands for its own QMP and agent."""

    version: tuple[int, int] = (7, 2)
    at_reset: list[str] = field(factory=lambda: ["shutdown"])
    heard: anyio.Event = field(factory=anyio.Event)
    was_reset: anyio.Event = field(factory=anyio.Event)
    ended: anyio.Event = field(factory=anyio.Event)
    reason: str = "guest-reset"
    said: list[str] = field(factory=list)
    failure: QemuFailed | None = None

    @property
    def qmp(self) -> Guest:
        return self

    @property
    def agent(self) -> Guest:
        return self

    @property
    def room(self) -> Any:
        return type("Room", (), {"console_log": __file__})

    async def execute(self, command: str, **arguments: str) -> Any:
        """What QEMU answers."""
        if command == "query-version":
            major, minor = self.version
            return {"qemu": {"major": major, "minor": minor, "micro": 0}}
        assert command == "set-action"
        self.at_reset.append(arguments["reboot"])
        return {}

    async def reset(self) -> None:
        """What becomes of it when it resets itself."""
        await anyio.wait_all_tasks_blocked()
        if self.at_reset[-1] == "reset":
            self.was_reset.set()
        else:
            self.ended.set()
        await anyio.sleep(0.1)


async def wait(
    guest: Guest, accelerator: Accelerator = TCG, cpus: int = 2, forgive: bool = True
) -> None:
    try:
        await first_word(guest, accelerator, cpus, guest.said.append, forgive=forgive)  # type: ignore[arg-type]
    except QemuFailed as failure:
        guest.failure = failure


@pytest.mark.parametrize(
    ("accelerator", "version", "cpus", "forgive"),
    [
        (KVM, (7, 2), 2, True), (TCG, (8, 1), 2, True), (TCG, (10, 0), 2, True),
        (TCG, (7, 2), 1, True), (TCG, (7, 2), 2, False),
    ],
)  # fmt: skip
def test_where_it_is_nobodys_fault_but_the_guests(
    accelerator: Accelerator, version: tuple[int, int], cpus: int, forgive: bool
) -> None:
    async def main() -> None:
        guest = Guest(version)
        async with anyio.create_task_group() as group:
            group.start_soon(wait, guest, accelerator, cpus, forgive)
            await guest.reset()
        assert "guest-reset" in str(guest.failure)
        assert guest.said == []
        assert "reset" not in guest.at_reset

    anyio.run(main)


@pytest.mark.parametrize("version", [(7, 2), (8, 0)])
def test_one_is_forgiven_and_no_second_one(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hear, "FIRMWARE_S", 0.0)

    async def main() -> None:
        guest = Guest(version)
        async with anyio.create_task_group() as group:
            group.start_soon(wait, guest)
            await guest.reset()
            assert guest.failure is None
            await guest.reset()
        assert "guest-reset" in str(guest.failure)
        assert len(guest.said) == 1

    anyio.run(main)


@pytest.mark.parametrize("resets", [0, 1])
def test_once_it_has_spoken_a_reset_is_the_end(resets: int) -> None:
    async def main() -> None:
        guest = Guest()
        async with anyio.create_task_group() as group:
            group.start_soon(wait, guest)
            for _ in range(resets):
                await guest.reset()
            await anyio.wait_all_tasks_blocked()
            guest.heard.set()
        assert guest.failure is None
        assert guest.at_reset == ["shutdown", "reset", "shutdown"]

    anyio.run(main)
