"""Unix sockets under paths of any length, and what comes with clients that come and go."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from sandbox_rpc.host import sockets


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A folder whose path alone is longer than a socket's may be."""
    folder = tmp_path / ("d" * 150) / ("é" * 75)
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder)) > 300
    return folder


async def echo(stream: anyio.abc.SocketStream) -> None:
    """Send back whatever comes."""
    async with stream:
        try:
            async for data in stream:
                await stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


def test_long_path(deep: Path) -> None:
    """Bind and connect both work, the socket is private, and it is gone at the end."""
    path = deep / "a.sock"

    async def main() -> None:
        async with sockets.listen(path) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            assert path.stat().st_mode & 0o777 == 0o600
            async with await sockets.connect(path) as client:
                await client.send(b"hello")
                with anyio.fail_after(10):
                    assert await client.receive() == b"hello"
                await client.send_eof()
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()
            group.cancel_scope.cancel()
        assert not path.exists()

    anyio.run(main)


def test_dead_predecessors_socket_is_replaced(deep: Path) -> None:
    """What a killed supervisor leaves is no obstacle; connecting to it says that it is dead."""
    path = deep / "a.sock"
    with sockets.short(path) as name, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(name)

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await sockets.connect(path)
        async with sockets.listen(path) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            await (await sockets.connect(path)).aclose()
            group.cancel_scope.cancel()
        with pytest.raises(FileNotFoundError):
            await sockets.connect(path)

    anyio.run(main)


def test_large_amounts_and_a_slow_reader(tmp_path: Path) -> None:
    """Everything arrives, in order, also when the reader lets the socket fill up."""
    data = os.urandom(1 << 20) * 4

    async def main() -> None:
        got = bytearray()

        async def take(stream: anyio.abc.SocketStream) -> None:
            await anyio.sleep(0.1)
            async for chunk in stream:
                got.extend(chunk)
            finished.set()

        finished = anyio.Event()
        async with (
            sockets.listen(tmp_path / "a.sock") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, take)
            async with await sockets.connect(tmp_path / "a.sock") as client:
                await client.send(data)
            with anyio.fail_after(30):
                await finished.wait()
            group.cancel_scope.cancel()
        assert bytes(got) == data

    anyio.run(main)


def test_peer_that_vanishes_is_an_error_of_the_connection(tmp_path: Path) -> None:
    """Writing to nobody is BrokenResourceError, reading from a closed one ClosedResourceError."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        stream = sockets.Stream(ours)
        theirs.close()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()

    anyio.run(main)


def test_close_wakes_the_reader(tmp_path: Path) -> None:
    """A task that waits for bytes learns that there will be none."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        stream = sockets.Stream(ours)
        seen: list[type] = []

        async def read() -> None:
            try:
                await stream.receive()
            except anyio.ClosedResourceError as error:
                seen.append(type(error))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                await stream.aclose()
        assert seen == [anyio.ClosedResourceError]
        theirs.close()

    anyio.run(main)


def test_cancel_and_data_in_one_turn_leave_no_word_in_the_log(tmp_path: Path) -> None:
    """A reader that is cancelled in the turn in which data arrive: asyncio must not complain."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        for _ in range(20):
            ours, theirs = socket.socketpair()
            stream = sockets.Stream(ours)
            async with anyio.create_task_group() as group:
                group.start_soon(stream.receive)
                await anyio.wait_all_tasks_blocked()
                theirs.send(b"x")
                group.cancel_scope.cancel()
            theirs.close()
            await stream.aclose()
        async with (
            sockets.listen(tmp_path / "a.sock") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            await anyio.wait_all_tasks_blocked()
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(str(tmp_path / "a.sock"))
            group.cancel_scope.cancel()
        raw.close()

    anyio.run(main)
    assert complaints == []


def test_no_descriptors_left_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused accept is tried again; a supervisor must not die of it."""
    refusals = [OSError(24, "Too many open files"), ConnectionAbortedError()]

    class Refusing(socket.socket):
        def accept(self) -> Any:
            if refusals:
                raise refusals.pop()
            return super().accept()

    async def main() -> None:
        with Refusing(socket.AF_UNIX) as raw:
            raw.bind(str(tmp_path / "a.sock"))
            raw.listen(1)
            raw.setblocking(False)
            async with anyio.create_task_group() as group:
                group.start_soon(sockets.Listener(raw).serve, echo)
                async with await sockets.connect(tmp_path / "a.sock") as client:
                    await client.send(b"x")
                    with anyio.fail_after(10):
                        assert await client.receive() == b"x"
                group.cancel_scope.cancel()

    anyio.run(main)
    assert refusals == []


def test_full_queue_is_waited_for(tmp_path: Path) -> None:
    """A listener that is busy does not look like one that is not there."""

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.bind(str(tmp_path / "a.sock"))
            raw.listen(0)
            raw.setblocking(False)
            first = await sockets.connect(tmp_path / "a.sock")
            with anyio.move_on_after(0.3) as scope:
                await sockets.connect(tmp_path / "a.sock")
            assert scope.cancelled_caught
            raw.accept()[0].close()
            with anyio.fail_after(10):
                second = await sockets.connect(tmp_path / "a.sock")
            await first.aclose()
            await second.aclose()

    anyio.run(main)


def test_shortcut_only_where_it_is_needed(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For socat; in a folder of ours alone, or not at all."""
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    assert sockets.shortcut(Path("/a/console.sock")) == Path("/a/console.sock")
    path = deep / "console.sock"
    link = sockets.shortcut(path)
    assert len(os.fsencode(link)) <= sockets.MAX_PATH
    sockets.make_shortcut(path)
    sockets.make_shortcut(path)
    assert link.readlink() == path
    assert link.parent.stat().st_mode & 0o777 == 0o700
    sockets.remove_shortcut(path)
    assert not link.is_symlink()
    link.parent.chmod(0o755)
    sockets.make_shortcut(path)
    assert not link.is_symlink()  # others could have been there first


def test_a_descriptor_goes_along(tmp_path: Path) -> None:
    """With the first byte, also where the bytes do not all fit into the socket's buffer."""
    path = tmp_path / "a.sock"
    data = bytes(range(256)) * 8192
    got: list[tuple[bytes, str]] = []

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(1)

            def take() -> None:
                peer, _ = listening.accept()
                with peer:
                    received, fds, _, _ = socket.recv_fds(peer, 1 << 16, 4)
                    (fd,) = fds
                    while len(received) < len(data):
                        received += peer.recv(1 << 16)
                    with os.fdopen(fd) as file:
                        got.append((received, file.read()))

            (tmp_path / "file").write_text("content")
            with (tmp_path / "file").open() as file, anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    stream = await sockets.connect(path)
                    group.start_soon(anyio.to_thread.run_sync, take)
                    await stream.send_with(data, file.fileno())
                await stream.aclose()

    anyio.run(main)
    assert got == [(data, "content")]
