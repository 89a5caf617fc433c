"""What a peer does with frames, garbage and errors."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from sandbox_rpc.host.sockets import Stream
from sandbox_rpc.protocol import frames
from sandbox_rpc.protocol.errors import ImageNotFound
from sandbox_rpc.supervisor.wire import Peer, PeerGone, RequestCancelled

Scene = Callable[["Raw", Peer], Awaitable[None]]


class Raw:
    """The other end, in plain bytes."""

    def __init__(self, raw: socket.socket) -> None:
        self.stream = Stream(raw)
        self._decoder = frames.Decoder()
        self._bodies: list[bytes] = []

    async def read(self) -> Any:
        """The next message."""
        with anyio.fail_after(10):
            while not self._bodies:
                self._bodies += self._decoder.feed(await self.stream.receive())
        return json.loads(self._bodies.pop(0))

    async def send(self, message: dict[str, Any], *, cut: bool = False) -> None:
        data = frames.encode(message)
        for part in (data[n : n + 1] for n in range(len(data))) if cut else (data,):
            await self.stream.send(part)


async def answer(method: str, params: dict[str, Any], id_: int) -> Any:
    """What the peer under test answers."""
    match method:
        case "echo":
            return params
        case "refuse":
            raise ImageNotFound("no such image", ref="x")
        case "cancelled":
            raise RequestCancelled
        case "broken":
            raise ZeroDivisionError("secret detail")
        case "slow":
            await anyio.sleep(0.2)
            return id_
    raise LookupError(method)


def run(scene: Scene, heard: list[Any] | None = None) -> None:
    """Play a scene between a raw end and a peer."""

    async def main() -> None:
        ours, theirs = socket.socketpair()

        def hear(method: str, params: dict[str, Any]) -> None:
            if heard is not None:
                heard.append((method, params))

        peer = Peer(Stream(ours), answer=answer, hear=hear)
        raw = Raw(theirs)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(peer.run)
                await scene(raw, peer)
                await raw.stream.aclose()
        ours.close()

    anyio.run(main)


def request(method: str, id_: int = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def test_single_bytes_and_many_at_once() -> None:
    """However the stream is cut, each request is answered once, by its id."""

    async def scene(raw: Raw, peer: Peer) -> None:
        await raw.send(request("echo", 7, text="ä\udcff"), cut=True)
        assert await raw.read() == {"jsonrpc": "2.0", "id": 7, "result": {"text": "ä\udcff"}}
        many = b"".join(frames.encode(request("echo", n, n=n)) for n in range(50))
        await raw.stream.send(many)
        answers = [await raw.read() for _ in range(50)]
        assert sorted(one["id"] for one in answers) == list(range(50))
        assert all(one["result"] == {"n": one["id"]} for one in answers)

    run(scene)


def test_slow_answer_stops_nobody() -> None:
    """Requests are answered as they are done, and those under way can be waited for."""

    async def scene(raw: Raw, peer: Peer) -> None:
        await raw.send(request("slow", 1))
        await raw.send(request("echo", 2))
        assert (await raw.read())["id"] == 2
        await peer.answered()
        assert (await raw.read())["id"] == 1

    run(scene)


def test_errors_have_codes_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Ours as they are; a fault of the program says that there is a log, and no more."""

    async def scene(raw: Raw, peer: Peer) -> None:
        await raw.send(request("refuse"))
        assert (await raw.read())["error"] == ImageNotFound("no such image", ref="x").to_wire()
        await raw.send(request("cancelled"))
        assert (await raw.read())["error"]["code"] == -32800
        await raw.send(request("nonsense"))
        assert (await raw.read())["error"]["code"] == -32601
        with caplog.at_level(logging.CRITICAL + 1):
            await raw.send(request("broken"))
            error = (await raw.read())["error"]
        assert error["code"] == -32603
        assert "secret detail" not in json.dumps(error)
        assert "Traceback" not in json.dumps(error)
        await raw.send(request("echo", 9))
        assert (await raw.read())["id"] == 9

    run(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: 99999999999\r\n\r\n",
        b"x" * 5000,
        b"Content-Length: 5\r\n\r\nnoJSO",
        b"Content-Length: 2\r\n\r\n[]",
        b"Content-Length: 4\r\n\r\nnull",
        b"Content-Length: 1\r\n\r\n\xff",
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    """The peer hangs up on one that does not speak the protocol; no exception leaves it."""

    async def scene(raw: Raw, peer: Peer) -> None:
        await raw.stream.send(garbage)
        # `run` has ended, or else a question would now wait for its answer.
        with pytest.raises(PeerGone):
            await peer.ask("echo", {})

    run(scene)


def test_asking() -> None:
    """Results, errors and cancels come back as what they are; strange answers are passed over."""

    async def scene(raw: Raw, peer: Peer) -> None:
        async def play() -> None:
            for reply in (
                {"result": 5},
                {"error": {"code": 1201, "message": "gone", "data": {"hint": "look", "ref": "x"}}},
                {"error": {"code": -32800, "message": "cancelled"}},
                {"error": {"code": 4711, "message": "from the future"}},
            ):
                id_ = (await raw.read())["id"]
                await raw.send({"jsonrpc": "2.0", "id": "strange", "result": 1})
                await raw.send({"jsonrpc": "2.0", "id": id_ + 1000, "result": 1})
                await raw.send({"jsonrpc": "2.0", "id": id_, **reply})

        async with anyio.create_task_group() as group:
            group.start_soon(play)
            ids: list[int] = []
            assert await peer.ask("a", {}, on_id=ids.append) == 5
            assert len(ids) == 1
            with pytest.raises(ImageNotFound, match="gone") as caught:
                await peer.ask("a", {})
            assert caught.value.hint == "look"
            with pytest.raises(RequestCancelled):
                await peer.ask("a", {})
            with pytest.raises(Exception, match="from the future"):
                await peer.ask("a", {})

    run(scene)


def test_peer_that_dies_is_gone_for_all_who_wait() -> None:
    """Nobody waits for an answer that cannot come."""

    async def scene(raw: Raw, peer: Peer) -> None:
        gone: list[str] = []

        async def ask() -> None:
            with pytest.raises(PeerGone):
                await peer.ask("a", {})
            gone.append("")

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await raw.read()
            await raw.read()
            await raw.stream.aclose()
        assert len(gone) == 2
        with pytest.raises(PeerGone):
            await peer.ask("a", {})
        await peer.tell("news", {})  # nobody hears it, and no error

    run(scene)


def test_notifications_are_heard() -> None:
    """In order, with what they say."""
    heard: list[Any] = []

    async def scene(raw: Raw, peer: Peer) -> None:
        await raw.send({"jsonrpc": "2.0", "method": "one", "params": {"a": 1}})
        await raw.send({"jsonrpc": "2.0", "method": "two"})
        await raw.send(request("echo"))
        await raw.read()

    run(scene, heard)
    assert heard == [("one", {"a": 1}), ("two", {})]
