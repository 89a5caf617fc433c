"""Commands of several clients over one connection, against an SSH server on this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from sandbox_rpc.protocol.errors import ExecFailed, SandboxNotRunning, SettingInvalid
from sandbox_rpc.protocol.streams import ExecResult
from sandbox_rpc.ssh.config import Endpoint
from sandbox_rpc.supervisor import execution as module
from sandbox_rpc.supervisor.executions import Executions
from sandbox_rpc.supervisor.wire import RequestCancelled
from tests.unit.ssh.guest import Guest, guest

LIMIT_S = 60


class Client:
    """One connection to the supervisor, as the executions see it."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage = stage
        self.number = number
        self.gone = anyio.Event()
        self.open = anyio.Event()
        """Not set: it takes nothing."""
        self.open.set()
        self.heard: dict[tuple[str, str], bytes] = {}

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        await self.open.wait()
        assert method == "sandbox/execOutput"
        key = params["token"], params["stream"]
        self.heard[key] = self.heard.get(key, b"") + base64.b64decode(params["data"])

    async def exec(self, token: str, *argv: str, id_: int = 1, **more: Any) -> ExecResult:
        params = {
            "name": "x", "token": token, "argv": list(argv), "cwd": str(self._stage.folder), **more
        }  # fmt: skip
        waiter = self.number, id_
        return await self._stage.executions.run(params, waiter, self.tell, self.gone)

    async def take(self, what: str, **params: Any) -> None:
        await self._stage.executions.take(self.number, f"sandbox/{what}", params)

    async def send(self, token: str, data: bytes, *, eof: bool = False) -> None:
        encoded = base64.b64encode(data).decode()
        await self.take("execInput", token=token, data=encoded, eof=eof)

    async def hears(self, token: str, wanted: bytes) -> None:
        """Wait until it has heard so much."""
        while wanted not in self.heard.get((token, "stdout"), b""):
            await anyio.sleep(0.01)


class Stage:
    """Executions with a server in the guest's place."""

    def __init__(self, server: Guest, folder: Path, group: anyio.abc.TaskGroup) -> None:
        self.server = server
        self.folder = folder
        self.group = group
        self.executions = Executions(lambda: server.endpoint, server.key, group)

    def client(self, number: int = 1) -> Client:
        return Client(self, number)


def play(tmp_path: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a scene."""

    async def main() -> None:
        with guest(tmp_path) as server, anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                await scene(Stage(server, tmp_path, group))
                group.cancel_scope.cancel()

    anyio.run(main)


async def cancelled(client: Client, token: str, *argv: str, wait_for: bytes) -> None:
    """Run a command, cancel it when it has said so much, and wait for that answer."""

    async def run() -> None:
        with pytest.raises(RequestCancelled):
            await client.exec(token, *argv)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await client.hears(token, wait_for)
        client._stage.executions.leave((client.number, 1))


def test_result_and_output(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()
        result = await client.exec("a", "sh", "-c", "echo o; echo e >&2; exit 7")
        assert (result.exit_code, result.signal) == (7, None)
        assert client.heard == {("a", "stdout"): b"o\n", ("a", "stderr"): b"e\n"}
        # Its end is the end of the token too.
        assert (await client.exec("a", "true", env={"A": "b"})).exit_code == 0

    play(tmp_path, scene)


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL", "HUP", "USR1", "SIGQUIT", "STKFLT"])
def test_signals(tmp_path: Path, name: str) -> None:
    """By SSH's own request; those that SSH has no name for by a command."""

    async def scene(stage: Stage) -> None:
        client = stage.client()
        results: list[ExecResult] = []

        async def run() -> None:
            results.append(await client.exec("a", "sh", "-c", "echo up; exec sleep 1000"))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await client.hears("a", b"up")
            await client.take("execSignal", token="a", signal=name)
        short = name.removeprefix("SIG")
        assert (results[0].exit_code, results[0].signal) == (
            128 + signal.Signals[f"SIG{short}"], short
        )  # fmt: skip

    play(tmp_path, scene)


def test_input_right_behind_the_request(tmp_path: Path) -> None:
    """Also as notifications, which nobody answers."""
    data = os.urandom(3_000_000)

    async def scene(stage: Stage) -> None:
        client = stage.client()
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await client.exec("a", "sha256sum", stdin=True)

            group.start_soon(run)
            for begin in range(0, len(data), 50_000):
                piece = base64.b64encode(data[begin : begin + 50_000]).decode()
                stage.executions.hear(1, "sandbox/execInput", {"token": "a", "data": piece})
            stage.executions.hear(1, "sandbox/execInput", {"token": "a", "eof": True})
        digest = hashlib.sha256(data).hexdigest()
        assert client.heard["a", "stdout"].decode().split()[0] == digest

    play(tmp_path, scene)


def test_input_is_welcome_as_fast_as_it_is_read(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await client.send("a", bytes(100_000))
                sent += 100_000

        async def run() -> None:
            await client.exec("a", "sh", "-c", "echo up; sleep 1000", stdin=True)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await client.hears("a", b"up")
            async with anyio.create_task_group() as sending:
                sending.start_soon(send)
                while sent < module.ENOUGH:
                    await anyio.sleep(0.01)
                # What the pipe, the server and we take, and then no more.
                before = 0
                while before < sent < 64 << 20:
                    before = sent
                    await anyio.sleep(0.2)
                assert sent < 16 << 20
                sending.cancel_scope.cancel()
            await client.take("execSignal", token="a", signal="KILL")

    play(tmp_path, scene)


def test_who_sends_on_and_on_loses_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOO_MUCH", 8 << 20)

    async def scene(stage: Stage) -> None:
        client = stage.client()

        async def run() -> None:
            with pytest.raises(ExecFailed, match="too much"):
                await client.exec("a", "sh", "-c", "echo up; sleep 1000", stdin=True)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await client.hears("a", b"up")
            piece = base64.b64encode(bytes(1 << 20)).decode()
            for _ in range(20):
                stage.executions.hear(1, "sandbox/execInput", {"token": "a", "data": piece})
        assert stage.server.children[0].wait() < 0

    play(tmp_path, scene)


def test_without_input_it_is_empty(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()
        assert (await client.exec("a", "cat")).exit_code == 0
        assert client.heard == {}

    play(tmp_path, scene)


def test_cancel_ends_all_of_it(tmp_path: Path) -> None:
    """Also what ignores TERM, in the background or not, and holds no output."""
    script = 'trap "" TERM; sleep 1000 >/dev/null 2>&1 & echo $!; wait'

    async def scene(stage: Stage) -> None:
        client = stage.client()
        await cancelled(client, "a", "sh", "-c", script, wait_for=b"\n")
        assert stage.server.children[0].poll() is not None
        pid = int(client.heard["a", "stdout"])
        assert is_over(pid)
        assert (await client.exec("a", "true")).exit_code == 0

    play(tmp_path, scene)


def test_cancel_gives_time_to_clean_up(tmp_path: Path) -> None:
    script = 'trap "echo bye > done; exit" TERM; echo up; while :; do sleep 0.05; done'

    async def scene(stage: Stage) -> None:
        await cancelled(stage.client(), "a", "sh", "-c", script, wait_for=b"up")
        assert (tmp_path / "done").read_text() == "bye\n"

    play(tmp_path, scene)


def test_a_lost_client_hangs_up(tmp_path: Path) -> None:
    """On its own commands only."""
    script = 'trap "echo hup > done; exit" HUP; echo up; while :; do sleep 0.05; done'

    async def scene(stage: Stage) -> None:
        lost, other = stage.client(1), stage.client(2)
        results: list[ExecResult] = []

        async def leave() -> None:
            with pytest.raises(RequestCancelled):
                await lost.exec("a", "sh", "-c", script)

        async def stay() -> None:
            results.append(await other.exec("a", "cat", stdin=True))

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await lost.hears("a", b"up")
            # Not before: of two at once either may be the first of the guest's children.
            group.start_soon(stay)
            while len(stage.server.children) < 2:
                await anyio.sleep(0.01)
            lost.gone.set()
            while not (tmp_path / "done").exists() or stage.server.children[0].poll() is None:
                await anyio.sleep(0.01)
            await other.send("a", b"still", eof=True)
        assert results[0].exit_code == 0
        assert other.heard["a", "stdout"] == b"still"

    play(tmp_path, scene)


def test_who_does_not_read_holds_up_only_its_own(tmp_path: Path) -> None:
    size = 3_000_000

    async def scene(stage: Stage) -> None:
        deaf, other = stage.client(1), stage.client(2)
        deaf.open = anyio.Event()
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await deaf.exec("a", "head", "-c", str(size), "/dev/zero")

            group.start_soon(run)
            while not stage.server.children:
                await anyio.sleep(0.01)
            await other.exec("a", "head", "-c", str(size), "/dev/zero")
            assert len(other.heard["a", "stdout"]) == size
            assert stage.server.children[0].poll() is None
            deaf.open.set()
        assert len(deaf.heard["a", "stdout"]) == size

    play(tmp_path, scene)


def test_tokens_belong_to_clients(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        one, two = stage.client(1), stage.client(2)
        async with anyio.create_task_group() as group:

            async def run(client: Client) -> None:
                await client.exec("a", "cat", stdin=True)

            group.start_soon(run, one)
            group.start_soon(run, two)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(ExecFailed, match="token"):
                await one.exec("a", "true", id_=2)
            await one.send("a", b"1", eof=True)
            await two.send("a", b"2", eof=True)
        assert (one.heard["a", "stdout"], two.heard["a", "stdout"]) == (b"1", b"2")

    play(tmp_path, scene)


def test_what_nobody_knows_is_ignored_and_what_nobody_understands_told(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()
        await client.send("nobody", b"x")
        await client.take("execSignal", token="nobody", signal="INT")
        await client.take("execResize", token="nobody", columns=1, rows=1)
        for wrong in ({}, {"token": 1}, {"token": "a", "data": 5}):
            with pytest.raises(SettingInvalid):
                await client.take("execInput", **wrong)
        for argv in ([], ["a\0b"]):
            with pytest.raises(SettingInvalid):
                await client.exec("a", *argv)
        assert stage.server.logins == []

        async def run() -> None:
            await client.exec("a", "cat", stdin=True)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(SettingInvalid):
                await client.take("execInput", token="a", data="no base64")
            with pytest.raises(SettingInvalid):
                await client.take("execSignal", token="a", signal="x y")
            await client.send("a", b"", eof=True)

    play(tmp_path, scene)


def test_what_cannot_begin(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()
        with pytest.raises(ExecFailed, match="/nowhere: No such file"):
            await client.exec("a", "echo", "ran", cwd="/nowhere")
        assert client.heard == {}
        assert (await client.exec("a", "no-such-program")).exit_code == 127

    play(tmp_path, scene)


def test_a_connection_that_ends_is_told_and_replaced(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        client = stage.client()

        async def run() -> None:
            with pytest.raises(ExecFailed, match="connection"):
                await client.exec("a", "sh", "-c", "echo up; exec sleep 1000")

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await client.hears("a", b"up")
            stage.server.logins[0].close()
        assert (await client.exec("a", "true")).exit_code == 0
        assert stage.executions.pool.logins == 2

    play(tmp_path, scene)


def test_no_machine(tmp_path: Path) -> None:
    def endpoint() -> Endpoint:
        raise SandboxNotRunning("x is stopped.", name="x")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            executions = Executions(endpoint, tmp_path / "key", group)
            params = {"name": "x", "token": "a", "argv": ["true"]}

            async def tell(method: str, params: dict[str, Any]) -> None:
                raise AssertionError

            with pytest.raises(SandboxNotRunning):
                await executions.run(params, (1, 1), tell, anyio.Event())

    anyio.run(main)


def is_over(pid: int) -> bool:
    """Whether a process has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
