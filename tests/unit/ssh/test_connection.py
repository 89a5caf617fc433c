"""A connection and the pool around it, against a server on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import attrs
import pytest

from sandbox_rpc.protocol.errors import ExecFailed, SshUnreachable
from sandbox_rpc.protocol.streams import Stream
from sandbox_rpc.ssh.connection import WINDOW, Connection, Session, connect
from sandbox_rpc.ssh.pool import Pool
from tests.unit.ssh.guest import Guest, guest, make_key

LIMIT_S = 60


def play(
    tmp_path: Path,
    scene: Callable[[Guest, anyio.abc.TaskGroup], Awaitable[None]],
    *,
    max_sessions: int = 1000,
) -> None:
    """Run a scene beside a server."""

    async def main() -> None:
        with guest(tmp_path, max_sessions=max_sessions) as server, anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                await scene(server, group)
                group.cancel_scope.cancel()

    anyio.run(main)


async def collect(session: Session) -> dict[Stream, bytes]:
    """All output."""
    found = {Stream.STDOUT: b"", Stream.STDERR: b""}
    while pieces := await session.receive():
        for stream, data in pieces:
            found[stream] += data
    return found


async def run(pool: Pool, command: bytes) -> tuple[int | None, bytes]:
    """A command to its end; status and output."""
    line, session = await pool.run(command)
    try:
        out = await collect(session)
    finally:
        await pool.release(line, session)
    return session.status, out[Stream.STDOUT]


async def until(question: Callable[[], bool]) -> None:
    """Wait for what cannot report; the scene's limit ends it."""
    while not question():
        await anyio.sleep(0.01)


def pool_of(server: Guest, group: anyio.abc.TaskGroup, idle_limit_s: float = 600) -> Pool:
    return Pool(lambda: server.endpoint, server.key, group, idle_limit_s=idle_limit_s)


def test_streams_status_and_input(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)

    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        session = await connection.open(b"tee /dev/stderr; exit 5", None)

        async def write() -> None:
            assert await session.send(data)
            await session.send_eof()

        group.start_soon(write)
        out = await collect(session)
        assert hashlib.sha256(out[Stream.STDOUT]).digest() == hashlib.sha256(data).digest()
        assert out[Stream.STDERR] == out[Stream.STDOUT]
        assert (session.status, session.signal) == (5, None)
        await session.aclose()
        await connection.aclose()

    play(tmp_path, scene)


def test_signal_is_delivered_told_and_its_end_reported(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        session = await connection.open(b"exec sleep 1000", None)
        assert await session.kill("USR1")
        await collect(session)
        assert (session.status, session.signal) == (None, "USR1")
        # Refused by then, and no harm to others.
        assert not await session.kill("TERM")
        other = await connection.open(b"echo fine", None)
        assert (await collect(other))[Stream.STDOUT] == b"fine\n"

    play(tmp_path, scene)


def test_refused_signal_does_not_close_the_session(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        # Its leader gives its place to another session, which holds the output open.
        line = b"setsid sh -c 'echo away; read x; echo $x' <&0 & exit 3"
        session = await connection.open(line, None)
        assert await session.receive() == [(Stream.STDOUT, b"away\n")]
        await until(lambda: bool(server.children) and server.children[0].poll() is not None)
        assert not await session.kill("TERM")
        await session.send(b"on\n")
        assert (await collect(session))[Stream.STDOUT] == b"on\n"
        assert session.status == 3

    play(tmp_path, scene)


def test_who_does_not_read_stops_the_command_and_no_other(tmp_path: Path) -> None:
    size = 4_000_000

    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        deaf = await connection.open(b"head -c %d /dev/zero" % size, None)
        other = await connection.open(b"head -c %d /dev/zero" % size, None)
        assert len((await collect(other))[Stream.STDOUT]) == size
        waiting = len(deaf._channel.in_buffer)
        assert waiting <= WINDOW
        assert server.children[0].poll() is None
        assert len((await collect(deaf))[Stream.STDOUT]) == size

    play(tmp_path, scene)


def test_input_that_nobody_reads_waits_and_then_ends(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        session = await connection.open(b"sleep 1000", None)
        taken: list[bool] = []

        async def write() -> None:
            taken.append(await session.send(bytes(30_000_000)))

        group.start_soon(write)
        other = await connection.open(b"echo fine", None)
        assert (await collect(other))[Stream.STDOUT] == b"fine\n"
        assert not taken
        await session.kill("KILL")
        await until(lambda: taken == [False])

    play(tmp_path, scene)


def test_another_host_key_is_refused(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        public = make_key(tmp_path / "stranger").with_suffix(".pub").read_text().split()
        wrong = attrs.evolve(server.endpoint, host_key=" ".join(public[:2]))
        with pytest.raises(SshUnreachable, match="host key"):
            await connect(wrong, server.key, group)
        assert server.logins == []

    play(tmp_path, scene)


def test_another_client_key_is_refused(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        with pytest.raises(SshUnreachable):
            await connect(server.endpoint, make_key(tmp_path / "stranger"), group)

    play(tmp_path, scene)


def test_nobody_there(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        nowhere = attrs.evolve(server.endpoint, port=1)
        pool = Pool(lambda: nowhere, server.key, group)
        with pytest.raises(SshUnreachable, match="refused"):
            await pool.run(b"true")

    play(tmp_path, scene)


def test_one_login_serves_all(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        pool = pool_of(server, group)
        for _ in range(5):
            assert await run(pool, b"echo one") == (0, b"one\n")
        async with anyio.create_task_group() as many:
            for _ in range(20):
                many.start_soon(run, pool, b"echo one")
        assert (len(server.logins), pool.logins) == (1, 1)
        assert len(server.children) == 25

    play(tmp_path, scene)


def test_as_many_connections_as_the_server_wants(tmp_path: Path) -> None:
    """50 at once, 10 on each, and every one of them while all the others run."""

    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        pool = pool_of(server, group)
        done: list[int | None] = []
        sessions = []

        async def one() -> None:
            line, session = await pool.run(b"read x; exit 4")
            sessions.append(session)
            await until(lambda: len(sessions) == 50)
            await session.send(b"\n")
            await collect(session)
            await pool.release(line, session)
            done.append(session.status)

        async with anyio.create_task_group() as many:
            for _ in range(50):
                many.start_soon(one)
        assert done == [4] * 50
        assert 5 <= len(server.logins) <= 8

    play(tmp_path, scene, max_sessions=10)


def test_a_server_that_takes_none(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        with pytest.raises(SshUnreachable, match="refuses"):
            await pool_of(server, group).run(b"true")

    play(tmp_path, scene, max_sessions=0)


def test_a_broken_connection_is_replaced(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        pool = pool_of(server, group)
        line, session = await pool.run(b"echo begun; exec sleep 1000")
        assert await session.receive() == [(Stream.STDOUT, b"begun\n")]
        server.logins[0].close()
        assert await session.receive() == []
        assert (session.status, session.signal) == (None, None)
        await pool.release(line, session)
        assert await run(pool, b"echo again") == (0, b"again\n")
        assert (pool.logins, pool.connections) == (2, 1)

    play(tmp_path, scene)


def test_idle_connections_are_closed_and_used_ones_not(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        pool = pool_of(server, group, idle_limit_s=0.2)
        line, session = await pool.run(b"read x; echo $x")
        await anyio.sleep(0.6)
        assert server.open == 1
        await session.send(b"still\n")
        assert (await collect(session))[Stream.STDOUT] == b"still\n"
        await pool.release(line, session)
        await until(lambda: server.open == 0 and pool.connections == 0)
        assert await run(pool, b"echo again") == (0, b"again\n")
        assert len(server.logins) == 2

    play(tmp_path, scene)


def test_a_login_that_nobody_waits_for_serves_the_next(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        pool = pool_of(server, group)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(pool.ready)
            await anyio.lowlevel.checkpoint()
            impatient.cancel_scope.cancel()
        await pool.ready()
        assert len(server.logins) == 1

    play(tmp_path, scene)


def test_a_guest_that_ignores_the_window_loses_the_connection(tmp_path: Path) -> None:
    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection: Connection = await connect(server.endpoint, server.key, group)
        session = await connection.open(b"sleep 1000", None)
        (channel,) = server.logins[0]._channels.values()
        channel.out_window_size = 1 << 30
        with suppress(EOFError, OSError), anyio.move_on_after(20):
            await connection.work(channel.sendall, bytes(16 << 20), abandon=True)
        await until(lambda: not connection.is_open)
        assert len(session._channel.in_buffer) <= 3 * WINDOW

    play(tmp_path, scene)


def test_refused_command(tmp_path: Path) -> None:
    """A connection that ends between the request and its answer leaves open what has been run."""

    async def scene(server: Guest, group: anyio.abc.TaskGroup) -> None:
        connection = await connect(server.endpoint, server.key, group)
        login = server.logins[0].server_object
        login.check_channel_exec_request = lambda *_: False
        with pytest.raises(ExecFailed):
            await connection.open(b"true", None)
        assert connection.is_open

    play(tmp_path, scene)
