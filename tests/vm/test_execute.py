"""Commands in the guest over the supervisor's own connection, as the service runs them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import define, field

from sandbox_rpc.protocol.errors import ExecFailed
from sandbox_rpc.protocol.streams import (
    ExecInput,
    ExecOutput,
    ExecParams,
    ExecResize,
    ExecResult,
    ExecSignal,
    Stream,
    Terminal,
)
from sandbox_rpc.sandboxes.execute import execute
from sandbox_rpc.supervisor import client
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.wire import RequestCancelled
from tests.vm.conftest import Running

T = TypeVar("T")

LIMIT_S = 120
PIECE = 48_000
ARGUMENTS = [
    "", " ", "two words", "it's", '"quoted"', "new\nline", "tab\t", "$HOME", "$(id)", "`id`", "\\",
    "\\n", "*", "~", "!x", "#", "&", ";", "|", "-n", "--", "a=b", "héllo 日本", "%d %%",
]  # fmt: skip


@define
class Run:
    """One command and what came of it."""

    sandbox: Running
    out: dict[Stream, bytearray] = field(
        factory=lambda: {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    )
    heard: anyio.Event = field(factory=anyio.Event)
    open: anyio.Event | None = None
    """Where there is one, nothing is taken before it is set."""

    @property
    def stdout(self) -> bytes:
        return bytes(self.out[Stream.STDOUT])

    async def __call__(
        self,
        *argv: str,
        data: bytes | None = None,
        control: MemoryObjectReceiveStream[ExecSignal | ExecResize] | None = None,
        cancel: anyio.Event | None = None,
        **more: Any,
    ) -> ExecResult:
        """Run it to its end."""
        send, receive = anyio.create_memory_object_stream[ExecInput]()
        params = ExecParams(self.sandbox.name, "t", list(argv), stdin=data is not None, **more)
        result: list[ExecResult] = []

        async def work() -> None:
            async def write() -> None:
                async with send:
                    for begin in range(0, len(data or b""), PIECE):
                        piece = (data or b"")[begin : begin + PIECE]
                        await send.send(ExecInput("t", base64.b64encode(piece).decode()))

            async with receive, anyio.create_task_group() as group:
                group.start_soon(write)
                result.append(
                    await execute(
                        self.sandbox.host.layout, params,
                        output=self._take, input=receive, control=control, cancel=cancel,
                    )
                )  # fmt: skip
                group.cancel_scope.cancel()

        try:
            await work()
        except BaseExceptionGroup as group:
            raise unwrapped(group) from None
        return result[0]

    async def hears(self, wanted: bytes) -> None:
        """Wait until it has said so much."""
        while wanted not in self.stdout:
            await self.heard.wait()

    async def _take(self, piece: ExecOutput) -> None:
        if self.open is not None:
            await self.open.wait()
        assert piece.token == "t"
        self.out[piece.stream] += base64.b64decode(piece.data)
        self.heard.set()
        self.heard = anyio.Event()


def play(scene: Callable[[], Awaitable[T]]) -> T:
    """Run a scene within a limit; its one error comes out of its groups."""

    async def main() -> T:
        with anyio.fail_after(LIMIT_S):
            return await scene()

    try:
        return anyio.run(main)
    except BaseExceptionGroup as group:
        raise unwrapped(group) from None


def logins(sandbox: Running) -> int:
    """How often the supervisor has logged in to the guest."""
    log = sandbox.host.home_of(sandbox.name).supervisor_log
    return log.read_text().count("SSH login ")


def sleepers(sandbox: Running, mark: str) -> str:
    """What runs in the guest with a mark in its command line; pgrep does not see itself."""
    run = Run(sandbox)
    play(lambda: run("pgrep", "-f", "-a", mark))
    return run.stdout.decode()


def test_arguments_folder_and_environment_arrive_exactly(sandbox: Running) -> None:
    script = "import json,os,sys; print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))"
    run = Run(sandbox)
    result = play(
        lambda: run("python3", "-c", script, *ARGUMENTS, cwd="/usr/share", env={"A": "b 'c' $x"})
    )
    arguments, folder, environment = json.loads(run.stdout)
    assert (result.exit_code, arguments, folder) == (0, ARGUMENTS, "/usr/share")
    assert environment["A"] == "b 'c' $x"
    assert environment["SANDBOX_CONTAINER"] == sandbox.name
    assert "SSH_AUTH_SOCK" not in environment
    assert result.duration_ms > 0


def test_folder_is_the_workspace_and_a_missing_one_an_error(sandbox: Running) -> None:
    run = Run(sandbox)
    play(lambda: run("pwd"))
    assert run.stdout == b"/home/dev/workspace\n"
    with pytest.raises(ExecFailed, match="/nowhere: No such file"):
        play(lambda: Run(sandbox)("pwd", cwd="/nowhere"))


def test_statuses_and_streams(sandbox: Running) -> None:
    run = Run(sandbox)
    result = play(lambda: run("sh", "-c", "echo o; echo e >&2; exit 42"))
    assert (result.exit_code, result.signal) == (42, None)
    assert run.out == {Stream.STDOUT: b"o\n", Stream.STDERR: b"e\n"}
    assert play(lambda: Run(sandbox)("no-such-program")).exit_code == 127


def test_20_mb_out_and_5_mb_in(sandbox: Running) -> None:
    data = os.urandom(5_000_000)
    run = Run(sandbox)
    script = (
        "import hashlib, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "print(hashlib.sha256(data).hexdigest(), file=sys.stderr)\n"
        "for _ in range(4): sys.stdout.buffer.write(data)\n"
    )
    play(lambda: run("python3", "-c", script, data=data))
    assert run.out[Stream.STDERR].decode().strip() == hashlib.sha256(data).hexdigest()
    assert hashlib.sha256(run.stdout).digest() == hashlib.sha256(data * 4).digest()


def test_without_input_it_is_empty(sandbox: Running) -> None:
    run = Run(sandbox)
    assert play(lambda: run("sh", "-c", "cat; readlink /proc/self/fd/0")).exit_code == 0
    assert run.stdout == b"/dev/null\n"


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL", "HUP", "USR1", "STKFLT"])
@pytest.mark.parametrize("tty", [None, Terminal()], ids=["pipes", "terminal"])
def test_signals(sandbox: Running, name: str, tty: Terminal | None) -> None:
    """Those that SSH has names for, and one that it has not."""

    async def scene() -> ExecResult:
        run = Run(sandbox)
        send, receive = anyio.create_memory_object_stream[ExecSignal | ExecResize](1)
        results: list[ExecResult] = []

        async def work() -> None:
            script = "echo up; exec sleep 1000"
            results.append(await run("sh", "-c", script, tty=tty, control=receive))

        async with send, receive, anyio.create_task_group() as group:
            group.start_soon(work)
            await run.hears(b"up")
            await send.send(ExecSignal("t", name))
        return results[0]

    result = play(scene)
    number = signal.Signals[f"SIG{name}"]
    if name == "STKFLT":
        # sshd has no name for it on the way back either.
        assert (result.exit_code, result.signal) == (128, "UNKNOWN")
    else:
        assert (result.exit_code, result.signal) == (128 + number, name)


def test_a_signal_reaches_what_runs_as_root(sandbox: Running) -> None:
    async def scene() -> ExecResult:
        run = Run(sandbox)
        send, receive = anyio.create_memory_object_stream[ExecSignal | ExecResize](1)
        results: list[ExecResult] = []

        async def work() -> None:
            script = "echo up; exec sleep 1000"
            results.append(await run("sudo", "sh", "-c", script, control=receive))

        async with send, receive, anyio.create_task_group() as group:
            group.start_soon(work)
            await run.hears(b"up")
            await send.send(ExecSignal("t", "KILL"))
        return results[0]

    assert play(scene).exit_code == 128 + signal.SIGKILL


def test_terminal_and_its_size(sandbox: Running) -> None:
    async def scene() -> None:
        run = Run(sandbox)
        script = (
            'test -t 0 && test -t 1 && echo $TERM; stty size; trap "stty size; exit 3" WINCH;'
            " echo up; while :; do sleep 0.1; done"
        )
        send, receive = anyio.create_memory_object_stream[ExecSignal | ExecResize](1)
        async with send, receive, anyio.create_task_group() as group:

            async def work() -> None:
                tty = Terminal(100, 33, "vt100")
                result = await run("bash", "-c", script, tty=tty, control=receive)
                assert result.exit_code == 3

            group.start_soon(work)
            await run.hears(b"up")
            await send.send(ExecResize("t", 50, 20))
        assert run.stdout.split() == b"vt100 33 100 up 20 50".split()
        assert run.out[Stream.STDERR] == b""

    play(scene)


@pytest.mark.parametrize("data", [None, b"", b"line\n", b"half a line"])
def test_input_of_a_terminal_ends(sandbox: Running, data: bytes | None) -> None:
    run = Run(sandbox)
    play(lambda: run("sh", "-c", "stty -echo; cat", tty=Terminal(), data=data))
    assert run.stdout.replace(b"\r", b"").endswith(data or b"")


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "echo up; sleep 1234"],
        ["sh", "-c", 'trap "" TERM; echo up; sleep 1234; sleep 1234'],
        ["sh", "-c", '(trap "" TERM; exec sleep 1234 >/dev/null 2>&1) & echo up; wait'],
        ["sudo", "sh", "-c", "echo up; sleep 1234"],
    ],
    ids=["plain", "deaf", "background", "root"],
)
def test_cancel_leaves_no_process(sandbox: Running, argv: list[str]) -> None:
    async def scene() -> None:
        run, cancel = Run(sandbox), anyio.Event()

        async def work() -> None:
            with pytest.raises(RequestCancelled):
                await run(*argv, cancel=cancel)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await run.hears(b"up")
            cancel.set()

    play(scene)
    assert sleepers(sandbox, "^sleep 1234") == ""


def test_a_lost_client_hangs_up(sandbox: Running) -> None:
    script = 'trap "echo hup > hup; exit" HUP; echo up; while :; do sleep 0.1; done'

    async def scene() -> None:
        run = Run(sandbox)

        async def work() -> None:
            await run("sh", "-c", script)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await run.hears(b"up")
            group.cancel_scope.cancel()
        while not (sandbox.workspace / "hup").exists():
            await anyio.sleep(0.1)

    play(scene)


def test_30_at_once_and_one_login(sandbox: Running) -> None:
    """Each of them while all others run."""

    async def scene() -> list[ExecResult]:
        await Run(sandbox)("true")
        before = logins(sandbox)
        results: list[ExecResult] = []
        running = 0

        async def one() -> None:
            nonlocal running
            run = Run(sandbox)
            send, receive = anyio.create_memory_object_stream[ExecSignal | ExecResize](1)

            async def work() -> None:
                script = "echo up; exec sleep 1000"
                results.append(await run("sh", "-c", script, control=receive))

            async with send, receive, anyio.create_task_group() as group:
                group.start_soon(work)
                await run.hears(b"up")
                running += 1
                while running < 30:
                    await anyio.sleep(0.1)
                await send.send(ExecSignal("t", "TERM"))

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)
        assert logins(sandbox) == before
        return results

    assert [result.signal for result in play(scene)] == ["TERM"] * 30


def test_who_does_not_read_holds_up_only_its_own(sandbox: Running) -> None:
    size = 8_000_000
    argv = ["sh", "-c", f"head -c {size} /dev/zero; touch read-to-end-$1", "sh"]

    async def scene() -> None:
        deaf, other = Run(sandbox, open=anyio.Event()), Run(sandbox)
        async with anyio.create_task_group() as group:

            async def work() -> None:
                await deaf(*argv, "deaf")

            group.start_soon(work)
            await other(*argv, "other")
            assert len(other.stdout) == size
            assert (sandbox.workspace / "read-to-end-other").exists()
            assert not (sandbox.workspace / "read-to-end-deaf").exists()
            assert deaf.open
            deaf.open.set()
        assert len(deaf.stdout) == size

    play(scene)


def test_a_killed_connection_is_replaced(sandbox: Running) -> None:
    with pytest.raises(ExecFailed, match="connection"):
        play(lambda: Run(sandbox)("sudo", "pkill", "-KILL", "-f", "^sshd-session"))
    before = logins(sandbox)
    assert play(lambda: Run(sandbox)("true")).exit_code == 0
    assert play(lambda: Run(sandbox)("true")).exit_code == 0
    assert logins(sandbox) == before + 1


def test_console_gets_its_size(sandbox: Running) -> None:
    home = sandbox.host.home_of(sandbox.name)
    size = {"columns": 91, "rows": 37}
    assert play(lambda: client.ask(home, "console/resize", size)) == {"applied": True}
    run = Run(sandbox)
    play(lambda: run("sudo", "stty", "-F", "/dev/ttyS0", "size"))
    assert run.stdout == b"37 91\n"
