"""Asking a supervisor: one that is there, another version, a silent one, a dying one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sandbox_rpc.host import sockets
from sandbox_rpc.host.paths import Home
from sandbox_rpc.protocol import frames
from sandbox_rpc.protocol.errors import ProtocolMismatch, SandboxBusy, SandboxNotRunning
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.supervisor import client
from sandbox_rpc.supervisor.wire import PeerGone, RequestCancelled

Attend = Callable[["Client"], Awaitable[None]]


class Client:
    """The supervisor's view of one client."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._decoder = frames.Decoder()
        self._bodies: list[bytes] = []

    async def tell(self, method: str, **params: Any) -> None:
        await self.stream.send(
            frames.encode({"jsonrpc": "2.0", "method": method, "params": params})
        )

    async def reply(self, id_: int, **outcome: Any) -> None:
        await self.stream.send(frames.encode({"jsonrpc": "2.0", "id": id_, **outcome}))

    async def read(self) -> Any:
        while not self._bodies:
            self._bodies += self._decoder.feed(await self.stream.receive())
        return json.loads(self._bodies.pop(0))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def ask(home: Home, attend: Attend | None, **options: Any) -> object:
    """What a client gets from a supervisor that behaves as `attend`."""

    outcome: list[object] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                assert attend is not None
                await attend(Client(stream))
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass  # the client has had enough

    async def call() -> None:
        try:
            outcome.append(await client.ask(home, "sandbox/start", {"a": 1}, **options))
        except Exception as error:
            outcome.append(error)

    async def main() -> None:
        if attend is None:
            await call()
            return
        async with (
            sockets.listen(home.supervisor_socket) as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, serve)
            # Less than the limit for a greeting: nobody waits for one that cannot come.
            with anyio.fail_after(8):
                await call()
            group.cancel_scope.cancel()

    anyio.run(main)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def test_nobody_there(home: Home) -> None:
    """No socket, and the socket of a dead one."""
    with pytest.raises(SandboxNotRunning):
        ask(home, None)
    with pytest.raises(SandboxNotRunning):
        ask(Home(home.folder / "missing"), None)


def test_result_and_progress(home: Home) -> None:
    """Progress is reported, other news are heard, the result is returned."""

    async def attend(peer: Client) -> None:
        await peer.tell("supervisor/1", name="x")
        request = await peer.read()
        assert request["method"] == "sandbox/start"
        assert request["params"] == {"a": 1}
        await peer.tell(
            "$/progress", token=1, value={"phase": "boot", "message": "m", "percentage": 3}
        )
        await peer.tell("sandbox/didChange", revision=2)
        await peer.reply(request["id"], result=[1])
        await anyio.sleep_forever()

    reports: list[Progress] = []
    news: list[tuple[str, Any]] = []
    got = ask(
        home, attend, report=reports.append, hear=lambda method, what: news.append((method, what))
    )
    assert got == [1]
    assert reports == [Progress("boot", "m", 3)]
    assert news == [("sandbox/didChange", {"revision": 2})]


def test_error_is_raised_as_it_is(home: Home) -> None:
    """Not wrapped in a group, with its hint."""

    async def attend(peer: Client) -> None:
        await peer.tell("supervisor/1")
        request = await peer.read()
        await peer.reply(request["id"], error=SandboxBusy("x is stopping", hint="wait").to_wire())
        await anyio.sleep_forever()

    with pytest.raises(SandboxBusy, match="is stopping") as caught:
        ask(home, attend)
    assert caught.value.hint == "wait"


def test_another_major_version(home: Home) -> None:
    """Nothing is asked of it."""
    asked: list[Any] = []

    async def attend(peer: Client) -> None:
        await peer.tell("supervisor/2", name="x")
        asked.append(await peer.read())

    with pytest.raises(ProtocolMismatch) as caught:
        ask(home, attend)
    assert caught.value.details["found"] == "supervisor/2"
    assert asked == []


def test_silent_peer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never greets is given up."""
    monkeypatch.setattr(client, "GREETING_LIMIT_S", 1)

    async def attend(peer: Client) -> None:
        await anyio.sleep_forever()

    with pytest.raises(PeerGone):
        ask(home, attend)


@pytest.mark.parametrize("after", ["connection", "greeting", "request", "garbage", "half a frame"])
def test_peer_that_dies(home: Home, after: str) -> None:
    """At any point: PeerGone, soon, so that the verb can ask the next supervisor."""

    async def attend(peer: Client) -> None:
        if after == "connection":
            return
        await peer.tell("supervisor/1")
        if after != "greeting":
            await peer.read()
        if after == "garbage":
            await peer.stream.send(b"Content-Length: 3\r\n\r\n{]}")
            await anyio.sleep_forever()
        if after == "half a frame":
            await peer.stream.send(b"Content-Length: 300\r\n\r\n{")

    with pytest.raises(PeerGone):
        ask(home, attend)


def test_progress_nobody_understands(home: Home) -> None:
    """What a newer supervisor reports in another shape costs the connection, not a traceback."""

    async def attend(peer: Client) -> None:
        await peer.tell("supervisor/1")
        await peer.read()
        await peer.tell("$/progress", value={"percentage": "all of it"})
        await anyio.sleep_forever()

    with pytest.raises(PeerGone):
        ask(home, attend)


def test_cancel_is_sent_and_its_answer_awaited(home: Home) -> None:
    """The call ends only when the supervisor says that nothing is left."""
    log: list[str] = []

    def scene(cancel: anyio.Event) -> Attend:
        async def attend(peer: Client) -> None:
            await peer.tell("supervisor/1")
            request = await peer.read()
            cancel.set()
            told = await peer.read()
            assert told["method"] == "$/cancelRequest"
            assert told["params"] == {"id": request["id"]}
            log.append("cancelled")
            await anyio.sleep(0.1)
            log.append("undone")
            await peer.reply(request["id"], error={"code": -32800, "message": "cancelled"})
            await anyio.sleep_forever()

        return attend

    cancel = anyio.Event()
    with pytest.raises(RequestCancelled):
        ask(home, scene(cancel), cancel=cancel)
    assert log == ["cancelled", "undone"]


def test_cancelled_before_it_was_asked(home: Home) -> None:
    """Ctrl-C while the supervisor was starting: it is never asked."""
    asked: list[Any] = []

    async def attend(peer: Client) -> None:
        await peer.tell("supervisor/1")
        asked.append(await peer.read())

    cancel = anyio.Event()
    cancel.set()
    with pytest.raises(RequestCancelled):
        ask(home, attend, cancel=cancel)
    assert asked == []
