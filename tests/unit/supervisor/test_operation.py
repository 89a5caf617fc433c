"""Two starts are one boot; the last one to leave undoes it, a lost connection does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import pytest

from sandbox_rpc.protocol.errors import QemuFailed, SandboxBusy
from sandbox_rpc.protocol.progress import Progress, Report, silent
from sandbox_rpc.supervisor.operation import Operation, unwrapped
from sandbox_rpc.supervisor.wire import RequestCancelled

HALFWAY = Progress("boot", "Halfway", 50)


class Work:
    """Work that goes on until it is told to end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = anyio.Event()
        self.undone = False
        self.error = error
        self.operation = Operation(self._do)

    async def _do(self, report: Report) -> str:
        try:
            report(HALFWAY)
            await self.go_on.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                self.undone = True
            raise
        if self.error:
            raise self.error
        return "done"


def run(scene: Callable[[anyio.abc.TaskGroup], Awaitable[None]]) -> None:
    """Run a scene; whatever hangs fails."""

    async def main() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                await scene(group)

    anyio.run(main)


async def join(work: Work, waiter: str, heard: list[object]) -> None:
    """Wait as `waiter`; what comes is noted."""
    try:
        heard.append(await work.operation.join(waiter, heard.append))
    except (RequestCancelled, QemuFailed, SandboxBusy) as error:
        heard.append(type(error))


def test_one_work_for_two() -> None:
    """Both get the result, and the late one hears how far it is."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, one, two = Work(), [], []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "one", one)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(join, work, "two", two)
        await anyio.wait_all_tasks_blocked()
        work.go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert one == two == [HALFWAY, "done"]

    run(scene)


def test_one_leaves_the_other_stays() -> None:
    """Who cancels is free at once; the work goes on for the other."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, one, two = Work(), [], []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "one", one)
        group.start_soon(join, work, "two", two)
        await anyio.wait_all_tasks_blocked()
        work.operation.leave("one")
        work.operation.leave("nobody")
        await anyio.wait_all_tasks_blocked()
        assert one[-1] is RequestCancelled
        assert not work.operation.is_cancelled
        work.go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert two[-1] == "done"
        assert not work.undone

    run(scene)


def test_last_one_undoes_it_and_waits_for_that() -> None:
    """Cancelled means that nothing is left."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, one, two = Work(), [], []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "one", one)
        group.start_soon(join, work, "two", two)
        await anyio.wait_all_tasks_blocked()
        work.operation.leave("one")
        work.operation.leave("two")
        assert work.operation.is_cancelled
        await work.operation.ended()
        assert work.undone
        await anyio.wait_all_tasks_blocked()
        assert one[-1] is two[-1] is RequestCancelled

    run(scene)


def test_lost_connection_does_not_leave() -> None:
    """A waiter whose task is gone keeps the work alive, also when another one leaves."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, lost, other = Work(), [], []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        async with anyio.create_task_group() as connection:
            connection.start_soon(join, work, "lost", lost)
            await anyio.wait_all_tasks_blocked()
            connection.cancel_scope.cancel()
        group.start_soon(join, work, "other", other)
        await anyio.wait_all_tasks_blocked()
        work.operation.leave("other")
        await anyio.wait_all_tasks_blocked()
        assert other[-1] is RequestCancelled
        assert not work.operation.is_cancelled
        work.go_on.set()
        assert await work.operation.join("third", silent) == "done"

    run(scene)


def test_who_cancels_unheard_ends_what_nobody_waits_for() -> None:
    """As after a supervisor's death: the one who asked it gives up before they ask the next."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, other = Work(), []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "other", other)
        await anyio.wait_all_tasks_blocked()
        work.operation.leave_unheard()
        assert not work.operation.is_cancelled
        work.go_on.set()
        alone = Work()
        group.start_soon(alone.operation.run)
        await anyio.wait_all_tasks_blocked()
        alone.operation.leave_unheard()
        await alone.operation.ended()
        assert alone.undone

    run(scene)


def test_stopped_from_outside_says_why() -> None:
    """Those who wait for a start that somebody stops have not pressed Ctrl-C."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        work, one = Work(), []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "one", one)
        await anyio.wait_all_tasks_blocked()
        work.operation.cancel(SandboxBusy("stopped"))
        await work.operation.ended()
        await anyio.wait_all_tasks_blocked()
        assert one[-1] is SandboxBusy
        assert work.undone

    run(scene)


def test_failure_reaches_all_and_ends_nothing_else() -> None:
    """Also one inside the groups that task groups make; the task that did the work lives on."""

    async def scene(group: anyio.abc.TaskGroup) -> None:
        errors = ExceptionGroup("", [ValueError(), ExceptionGroup("", [QemuFailed("it broke")])])
        work, one = Work(errors), []  # type: ignore[var-annotated]
        group.start_soon(work.operation.run)
        group.start_soon(join, work, "one", one)
        work.go_on.set()
        await work.operation.ended()
        await anyio.wait_all_tasks_blocked()
        assert one[-1] is QemuFailed
        with pytest.raises(QemuFailed, match="it broke"):
            await work.operation.join("late", silent)

    run(scene)


def test_unwrapped() -> None:
    """Ours before others, the only one where there is one."""
    ours = SandboxBusy("x")
    assert unwrapped(ExceptionGroup("", [KeyError(), ExceptionGroup("", [ours])])) is ours
    error = KeyError()
    assert unwrapped(ExceptionGroup("", [error])) is error
    assert unwrapped(error) is error
