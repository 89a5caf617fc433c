"""The host's end of the agent's port, with a socket in the guest's place that may be hostile."""

from __future__ import annotations

import base64
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.abc
import pytest

from sandbox_rpc.guest import agent
from sandbox_rpc.guest.agent import MAX_LINE, Agent
from sandbox_rpc.protocol.errors import GuestFailed

Test = Callable[[Agent, anyio.abc.SocketStream], Awaitable[None]]


def talk(tmp_path: Path, test: Test) -> None:
    """Run `test` with an agent connection and the guest's end of it."""

    async def main() -> None:
        port = socket.socket(socket.AF_UNIX)
        port.bind(str(tmp_path / "agent.sock"))
        port.listen(1)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                host = await agent.connect(tmp_path / "agent.sock", group)
                raw, _ = port.accept()
                raw.setblocking(False)
                guest = await anyio.abc.SocketStream.from_socket(raw)
                await test(host, guest)
                await guest.aclose()
                group.cancel_scope.cancel()
        port.close()

    anyio.run(main)


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_announcements(tmp_path: Path) -> None:
    """hello says that the kernel is up, ready that all is done."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        assert not host.heard.is_set()
        await guest.send(b"* hello " + b64("version=1\nstate=waiting\n") + b"\n")
        await host.heard.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(host.ready)
            await guest.send(b"* ready\n")

    talk(tmp_path, test)


def test_failure_is_told_with_the_guests_words(tmp_path: Path) -> None:
    """What the agent could not do reaches the error."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        await guest.send(b"* failed " + b64("mount: No such device") + b"\n")
        with pytest.raises(GuestFailed, match="No such device"):
            await host.ready()

    talk(tmp_path, test)


def test_answers_find_their_questions(tmp_path: Path) -> None:
    """Out of order, in pieces, with garbage between."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        answers: dict[str, bytes] = {}

        async def ask(verb: str) -> None:
            answers[verb] = await host.ask(verb, b"payload", timeout_s=10)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "one")
            await anyio.sleep(0.02)
            group.start_soon(ask, "two")
            asked = b""
            while asked.count(b"\n") < 2:
                asked += await guest.receive()
            (one, *first), (two, *second) = (line.split() for line in asked.splitlines())
            assert first == [b"one", b"cGF5bG9hZA=="]
            assert second == [b"two", b"cGF5bG9hZA=="]
            await guest.send(
                b"\xff\xfe garbage\n\n7 ok " + b64("nobody asked") + b"\n%b ok not-b64!\n" % one
            )
            for byte in b"%b ok %b\n%b ok %b\n" % (two, b64("B"), one, b64("A")):
                await guest.send(bytes([byte]))
        assert answers == {"one": b"A", "two": b"B"}

    talk(tmp_path, test)


def test_ids_are_this_conversations_own(tmp_path: Path) -> None:
    """A guest may still owe an answer to a supervisor that has died: its successor waits on."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        ids = set()
        for number in range(2):
            other = Agent(host._stream)
            await (host if number else other).tell("proceed")
            ids.add((await guest.receive()).split()[0])
        assert len(ids) == 2

    talk(tmp_path, test)


def test_refusal_silence_and_end(tmp_path: Path) -> None:
    """Each way not to get an answer is a GuestFailed that names the verb."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        async with anyio.create_task_group() as group:

            async def refused() -> None:
                with pytest.raises(GuestFailed, match="`unmount`: busy"):
                    await host.ask("unmount", timeout_s=10)

            group.start_soon(refused)
            id_, _ = (await guest.receive()).split()
            await guest.send(id_ + b" error " + b64("busy") + b"\n")
        with pytest.raises(GuestFailed, match="did not answer `ping`"):
            await host.ask("ping", timeout_s=0.05)
        await guest.aclose()
        with pytest.raises(GuestFailed):
            await host.ready()
        with pytest.raises(GuestFailed):
            await host.ask("ping", timeout_s=5)

    talk(tmp_path, test)


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """A guest that never sends a newline is bounded, and heard again when it does."""

    async def test(host: Agent, guest: anyio.abc.SocketStream) -> None:
        for _ in range(64):
            await guest.send(b"x" * MAX_LINE)
        await guest.send(b"\n* ready\n")
        await host.ready()

    talk(tmp_path, test)
