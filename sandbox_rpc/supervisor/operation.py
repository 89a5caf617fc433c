"""Work that several requests may wait for: two starts of one sandbox are one boot.

The work lives in the supervisor, the waiters are its connections. Only an explicit cancel leaves
it, and when the last waiter has left, the work is undone. A connection that is lost (a reloaded
window, a killed client) does not leave: the work finishes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.supervisor.wire import RequestCancelled

T = TypeVar("T")


def unwrapped(error: BaseException) -> BaseException:
    """The one error inside nested groups; task groups wrap also what is alone."""
    while isinstance(error, BaseExceptionGroup):
        known = error.subgroup(SandboxError)
        error = (known or error).exceptions[0]
    return error


class Operation(Generic[T]):
    """One piece of work, its waiters and its outcome."""

    def __init__(self, work: Callable[[Report], Awaitable[T]]) -> None:
        self._work = work
        self._reports: dict[object, Report] = {}
        self._left: dict[object, anyio.Event] = {}
        self._scope = anyio.CancelScope()
        self._done = anyio.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._cancelled_by: SandboxError | None = None
        self._latest: Progress | None = None

    async def run(self) -> None:
        """Do the work; in a task of the supervisor, never in a request's own."""
        try:
            with self._scope:
                self._result = await self._work(self._tell)
            if self._scope.cancelled_caught:
                self._error = self._cancelled_by or RequestCancelled()
        except Exception as error:  # also groups; handed to the waiters
            self._error = unwrapped(error)
        finally:
            self._done.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it is being undone, or has been."""
        return self._scope.cancel_called

    async def ended(self) -> None:
        """Wait for its end, whatever that is."""
        await self._done.wait()

    async def join(self, waiter: object, report: Report) -> T:
        """Wait for the outcome as `waiter`.

        Raises:
            RequestCancelled: this waiter left, or the work was cancelled.
            SandboxError: the work failed.
        """
        left = self._left[waiter] = anyio.Event()
        self._reports[waiter] = report
        if self._latest is not None:
            report(self._latest)
        async with anyio.create_task_group() as group:
            group.start_soon(self._await, left, group.cancel_scope)
            await self._done.wait()
            group.cancel_scope.cancel()
        self._reports.pop(waiter, None)
        if not self._done.is_set():
            raise RequestCancelled
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def leave(self, waiter: object) -> None:
        """The waiter has cancelled; the last one to leave takes the work along."""
        if (left := self._left.get(waiter)) is None:
            return
        self._reports.pop(waiter, None)
        if all(other.is_set() for key, other in self._left.items() if key != waiter):
            # The last one waits for the undoing, so that "cancelled" means nothing is left.
            self._scope.cancel()
        else:
            left.set()

    def leave_unheard(self) -> None:
        """Somebody cancels who has not come to wait; where nobody else does, that ends the work.

        As after a supervisor's death: its waiters are with the next one, but for who gives up now.
        """
        if all(left.is_set() for left in self._left.values()):
            self._scope.cancel()

    def cancel(self, reason: SandboxError) -> None:
        """End the work whoever waits; `reason` tells them why."""
        self._cancelled_by = reason
        self._scope.cancel()

    async def _await(self, left: anyio.Event, scope: anyio.CancelScope) -> None:
        await left.wait()
        scope.cancel()

    def _tell(self, progress: Progress) -> None:
        self._latest = progress
        for report in list(self._reports.values()):
            report(progress)
