"""The owner of one virtual machine: its state, its operations, its end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.abc
import anyio.to_thread
import attrs

from sandbox_rpc.host import files, locks, process
from sandbox_rpc.host.paths import CREDENTIAL_PREFIX
from sandbox_rpc.protocol import types
from sandbox_rpc.protocol.errors import (
    ConsoleGone,
    GuestFailed,
    QemuFailed,
    SandboxBusy,
    SandboxError,
    SandboxNotRunning,
    SettingInvalid,
    StateNewer,
    StopTimeout,
)
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.ssh.config import Endpoint
from sandbox_rpc.supervisor import adopt, alias, boot, image, request, scope, state
from sandbox_rpc.supervisor.clock import adjust as adjust_time
from sandbox_rpc.supervisor.clock import keep as keep_time
from sandbox_rpc.supervisor.executions import Executions
from sandbox_rpc.supervisor.explain import explain
from sandbox_rpc.supervisor.finish import finish, say_running
from sandbox_rpc.supervisor.holders import end_holders
from sandbox_rpc.supervisor.operation import Operation, unwrapped
from sandbox_rpc.supervisor.ports import Ports
from sandbox_rpc.supervisor.request import Launch, Place, StartRequest
from sandbox_rpc.supervisor.space import wait_for_room
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.steps import Steps
from sandbox_rpc.supervisor.stop import stop
from sandbox_rpc.supervisor.vm import FINE_REASONS, Vm, attach
from sandbox_rpc.supervisor.warm import has_identity

log = logging.getLogger(__name__)

RESIZE_LIMIT_S = 5
REACH_LIMIT_S = 15
"""How long an adopter tries to reach a machine's sockets before it counts as dead."""


class Supervisor:
    """Everything about one sandbox that only one process may decide."""

    def __init__(self, place: Place, group: anyio.abc.TaskGroup) -> None:
        self._place = place
        self._group = group
        self._vm: Vm | None = None
        self._launch: Launch | None = None
        self._starting: Operation[Sandbox] | None = None
        self._stopping: Operation[Sandbox] | None = None
        self.executions = Executions(self._endpoint, place.home.client_key, group)
        """The commands that run in the guest."""
        self.done = anyio.Event()
        """Set when there is nothing left to supervise."""
        try:
            known = state.load(place.room)
        except StateNewer:
            # Of a life that has ended it is of no use, and no obstacle.
            if locks.is_held(place.home.vm_lock):
                raise
            known = None
        self.store = Store(
            place.room, known or Sandbox(place.name, State.STOPPED, workspace="", revision=0)
        )
        self.ports = Ports(self.store, lambda: self._vm)
        """The ports of the host that lead into the guest."""

    async def start(self, wanted: StartRequest, waiter: object, report: Report) -> Sandbox:
        """Start the machine, join a start, or return the running one.

        Raises:
            SandboxNotRunning: this supervisor is about to end; the next one starts it.
            SandboxError: the start failed.
        """
        if self._starting is not None and self._starting.is_cancelled:
            # Others have undone theirs; this one is not to be undone with it.
            await self._starting.ended()
            raise _ending(self._place)
        if self.done.is_set():
            raise _ending(self._place)
        if self._stopping is not None:
            # A window that reconnects asks in this moment; it gets the next life.
            await self._stopping.ended()
            raise _ending(self._place)
        if self._starting is None:
            if self._vm is not None and not self._vm.ended.is_set():
                return self.store.sandbox
            self._starting = self._begin(lambda report: self._boot(wanted, report))
        return await self._starting.join(waiter, report)

    async def stop(
        self, waiter: object, report: Report, *, force: bool, limit_s: float = 0
    ) -> Sandbox:
        """Stop the machine, or join its stop; a start under way is cancelled first."""
        if self._starting is not None:
            self._starting.cancel(
                SandboxBusy(
                    f"{self._place.name} was stopped while it was starting.",
                    hint="Start it again.",
                    name=self._place.name,
                )
            )
            with suppress(Exception):
                await self._starting.join(object(), silent)
        if self._stopping is None:
            if self._vm is None or self._vm.ended.is_set():
                return await self._finalize(State.STOPPED)
            self._stopping = self._begin(
                lambda report: self._end(report, force=force, limit_s=limit_s)
            )
        elif force and self._vm is not None:
            self._group.start_soon(self._vm.quit)
        return await self._stopping.join(waiter, report)

    async def type(self, data: bytes) -> None:
        """Type on the console.

        Raises:
            ConsoleGone: there is none.
        """
        if self._vm is None or not await self._vm.hub.type(data):
            raise ConsoleGone(f"The console of {self._place.name} has ended.")

    async def resize(self, columns: object, rows: object) -> bool:
        """Tell the guest the size of the console's terminal; whether it knows now.

        Raises:
            SettingInvalid: that is no size.
            ConsoleGone: there is no console.
        """
        for number in (columns, rows):
            if type(number) is not int or not 0 < number < 1 << 16:
                raise SettingInvalid(f"No size of a terminal: {columns} by {rows}.")
        if self._vm is None:
            raise ConsoleGone(f"The console of {self._place.name} has ended.")
        try:
            size = f"{columns} {rows}".encode()
            await self._vm.agent.ask("winsize", size, timeout_s=RESIZE_LIMIT_S)
        except GuestFailed as error:
            log.info("the console keeps its size: %s", error)
            return False
        return True

    async def give_up(self) -> None:
        """A start was cancelled before it was joined: one that nobody waits for is undone."""
        if self._starting is not None:
            self._starting.leave_unheard()
            if self._starting.is_cancelled:
                await self._starting.ended()

    def leave(self, waiter: object) -> None:
        """A waiter has cancelled its request; a stop is never undone."""
        self.executions.leave(waiter)
        if self._starting is not None:
            self._starting.leave(waiter)

    async def adopt(self) -> None:
        """Take over a machine whose supervisor has died; finish what it had begun."""
        place = self._place
        note = request.noted(place.room)
        pid = (note.process if note else None) or next(
            filter(None, map(process.identify, locks.holders(place.home.vm_lock))), None
        )
        log.info("adopting %s, QEMU %s, %s", place.name, pid, self.store.sandbox.state)
        vm = None
        if note is not None and pid is not None:
            with anyio.move_on_after(REACH_LIMIT_S):
                try:
                    vm = await attach(place.room, pid, self._group, agent=note.agent)
                except SandboxError as error:
                    log.warning("cannot reach it: %s", error)
        if vm is None or note is None:
            # Alive, but out of reach for good: nobody can use it, so it is ended.
            if pid is not None:
                pid.kill(signal.SIGKILL)
            await end_holders(place)
            await self._finalize(State.LOST, QemuFailed("The machine could not be taken over."))
            return
        self._vm, self._launch = vm, note
        self._group.start_soon(self._mourn, vm)
        self._group.start_soon(self._serve_console, vm)
        await adopt.network(place, note, vm, self.store, self._group)
        self._catch_up(note, vm)
        settings = note.request.settings
        # The machine keeps its scope; this one is for us and the next network process.
        await anyio.to_thread.run_sync(scope.limit, place.name, settings.memory_mib, settings.cpus)
        await self.ports.adopt(vm)
        match self.store.sandbox.state:
            case State.RUNNING:
                await adopt.find_port(place, note, vm, self.store)
                await vm.wake()
                self._group.start_soon(adjust_time, vm)
            case State.STOPPING:
                self._stopping = self._begin(lambda report: self._end(report, force=False))
            case _:
                self._starting = self._begin(lambda report: self._resume(note, vm, report))

    def _catch_up(self, note: Launch, vm: Vm) -> None:
        """Write down what the dead supervisor may not have come to."""
        room = self._place.room
        if not self.store.sandbox.workspace:
            log.warning("its sandbox.json was missing or damaged")
            self.store.sandbox = self._new(note.request.workspace)
        with suppress(SandboxError, OSError):
            if note.process is None:
                request.note(room, attrs.evolve(note, process=vm.process))
            files.replace(room.qemu_pid, f"{vm.process.pid}\n")
        self.store.change(pid=vm.process.pid)
        # QEMU answers, so it has read them.
        for path in room.qemu.glob(f"{CREDENTIAL_PREFIX}*"):
            path.unlink(missing_ok=True)

    def _new(self, workspace: str) -> Sandbox:
        """The value at the beginning of a life."""
        place = self._place
        return Sandbox(
            place.name, State.STARTING, workspace,
            revision=self.store.sandbox.revision,
            console_socket=str(place.room.console_socket),
            console_log=str(place.room.console_log),
        )  # fmt: skip

    def _endpoint(self) -> Endpoint:
        sandbox = self.store.sandbox
        if sandbox.state is not State.RUNNING or sandbox.ssh is None:
            name = self._place.name
            raise SandboxNotRunning(f"{name} is {sandbox.state}.", name=name)
        return Endpoint(sandbox.ssh.port, sandbox.ssh.host_key)

    def _begin(self, work: Callable[[Report], Awaitable[Sandbox]]) -> Operation[Sandbox]:
        operation = Operation(work)
        self._group.start_soon(self._carry_out, operation)
        return operation

    async def _carry_out(self, operation: Operation[Sandbox]) -> None:
        await operation.run()
        if self._starting is operation:
            self._starting = None
        if self._stopping is operation:
            self._stopping = None
        if self._vm is None:
            self.done.set()

    async def _boot(self, wanted: StartRequest, report: Report) -> Sandbox:
        place = self._place
        state.clear(place.room, place.home, keep_logs=False)
        steps = Steps(self.store, report)
        try:
            with files.translated(place.room.folder):
                place.room.folder.mkdir(mode=0o700, parents=True)
                self.store.sandbox = self._new(wanted.workspace)
                self.store.change()
                files.replace(place.room.workspace_path, wanted.workspace + "\n")
                self._launch, self._vm = await boot.boot(
                    place, wanted, self.store, steps, self._group
                )
                await self._group.start(self._vm.hub.serve, place.room.console_socket)
                if self._launch.template is None:
                    sandbox = await finish(place, self._launch, self._vm, self.store, steps)
                else:
                    sandbox = say_running(self._launch, self.store, steps)
        except BaseException as error:
            await self._undo(unwrapped(error))
            raise
        self._group.start_soon(self._mourn, self._vm)
        self._group.start_soon(image.look_daily, place.layout, wanted.settings)
        return sandbox

    async def _resume(self, note: Launch, vm: Vm, report: Report) -> Sandbox:
        try:
            if note.template is None or await has_identity(note, vm):
                self._group.start_soon(self._greet, vm)
                steps = Steps(self.store, report)
                return await finish(self._place, note, vm, self.store, steps, forgive=False)
            log.info("its identity was lost with the one who made it: begun anew")
            with anyio.CancelScope(shield=True):
                await vm.quit()
            self._vm = None
        except BaseException as error:
            await self._undo(unwrapped(error))
            raise
        return await self._boot(note.request, report)

    async def _serve_console(self, vm: Vm) -> None:
        """Serve the console again; a machine without one is better than none."""
        try:
            await vm.hub.serve(self._place.room.console_socket)
        except OSError as error:
            log.warning("the console cannot be served: %s", error)

    async def _greet(self, vm: Vm) -> None:
        """Ask the agent for what it may have announced while nobody listened."""
        try:
            await vm.agent.greet()
        except SandboxError:
            log.info("the guest's agent does not answer; it may not be up yet")

    async def _undo(self, error: BaseException) -> None:
        """Leave nothing of a start that did not succeed but its logs."""
        with anyio.CancelScope(shield=True):
            log.info("start undone: %r", error)
            vm, self._vm = self._vm, None
            if isinstance(error, SandboxError):
                explain(self._place, error)
            if vm is not None:
                await vm.quit()
            else:
                await end_holders(self._place)
            state.clear(self._place.room, self._place.home, keep_logs=isinstance(error, Exception))
            self.store.change(state=State.STOPPED, phase=None, ssh=None, pid=None, forwards=[])
            self._withdraw_alias()

    def _withdraw_alias(self) -> None:
        """Let the alias be a stub again, if its file can be written."""
        try:
            alias.point(self._place, None)
        except (SandboxError, OSError) as error:
            log.warning("the alias cannot be written: %s", error)

    async def _end(self, report: Report, *, force: bool, limit_s: float = 0) -> Sandbox:
        vm, launch = self._vm, self._launch
        assert vm is not None
        assert launch is not None
        self.store.change(state=State.STOPPING, phase=None)
        await stop(vm, report, force=force, limit_s=limit_s or launch.stop_limit_s)
        if not vm.ended.is_set():
            raise StopTimeout(
                f"QEMU (process {vm.process.pid}) does not end, not even when killed.",
                hint="It hangs in the kernel, as with a dead network file system; see `dmesg`.",
            )
        return await self._finalize(State.STOPPED)

    async def _mourn(self, vm: Vm) -> None:
        """Notice the end of a machine that nobody stopped."""
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_room, vm, self.store, self._place.layout.base)
            group.start_soon(keep_time, vm)
            await vm.ended.wait()
            group.cancel_scope.cancel()
        for operation in (self._starting, self._stopping):
            if operation is not None:
                await operation.ended()
        if self._vm is not vm:
            return  # a start that has been undone, or a stop
        if vm.reason in FINE_REASONS:
            await self._finalize(State.STOPPED)
            return
        await self._finalize(
            State.LOST,
            QemuFailed(
                f"QEMU ended unexpectedly ({vm.reason or 'killed'}).",
                hint=f"Its logs are in {self._place.home.last}.",
            ),
        )

    async def _finalize(self, final: State, error: SandboxError | None = None) -> Sandbox:
        """Clean up after the machine's end and tell everyone; the last act of a supervisor."""
        place = self._place
        self._vm = None
        state.clear(place.room, place.home, keep_logs=final is State.LOST)
        self._withdraw_alias()
        failure = error and types.Failure(error.kind, error.message, error.hint)
        sandbox = self.store.change(
            state=final, phase=None, ssh=None, pid=None, forwards=[], failure=failure,
            console_socket=None, console_log=None,
        )  # fmt: skip
        if final is State.LOST:
            state.leave_lost(place.room, sandbox)
        self.done.set()
        return sandbox


def _ending(place: Place) -> SandboxNotRunning:
    return SandboxNotRunning(f"The supervisor of {place.name} is ending.", name=place.name)
