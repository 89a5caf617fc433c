"""The supervisor's process: its lock, its socket, the machine it starts or adopts."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import anyio.abc

from sandbox_rpc import __version__
from sandbox_rpc.host import locks, sockets
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.protocol.types import PortCloseParams, PortForwardParams, Sandbox
from sandbox_rpc.supervisor import executions, wire
from sandbox_rpc.supervisor.request import Place, StartRequest
from sandbox_rpc.supervisor.supervisor import Supervisor
from sandbox_rpc.supervisor.wire import Peer, RequestCancelled

log = logging.getLogger(__name__)

T = TypeVar("T")

IDLE_LIMIT_S = 20
"""A supervisor that nobody asks for anything ends: its client died before it could."""
FAREWELL_LIMIT_S = 5
"""For the last answers to leave; a client that does not read its own is not waited for."""


async def serve(place: Place, announce: Callable[[], None]) -> None:
    """Supervise one sandbox until it has stopped."""
    async with (
        sockets.listen(place.home.supervisor_socket) as listener,
        anyio.create_task_group() as group,
    ):
        supervisor = Supervisor(place, group)
        adopting = locks.is_held(place.home.vm_lock)
        if adopting:
            await supervisor.adopt()
        visitors = Visitors(supervisor)
        group.start_soon(listener.serve, visitors.attend)
        announce()
        if not adopting:
            with anyio.move_on_after(IDLE_LIMIT_S):
                await visitors.asked.wait()
        if adopting or visitors.asked.is_set():
            await supervisor.done.wait()
            with anyio.move_on_after(FAREWELL_LIMIT_S):
                await visitors.farewell()
        group.cancel_scope.cancel()
    log.info("ended")


class Visitors:
    """The connections of clients."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._count = itertools.count(1)
        self._peers: set[Peer] = set()
        self.asked = anyio.Event()
        """Set with the first request that starts or stops something."""

    async def farewell(self) -> None:
        """Wait until the requests under way are answered."""
        for peer in list(self._peers):
            await peer.answered()

    async def attend(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one client; its errors are its own and do not end the supervisor."""
        try:
            await self._attend(stream)
        except Exception:
            log.exception("serving a client failed")

    async def _attend(self, stream: anyio.abc.SocketStream) -> None:
        number = next(self._count)
        send, receive = anyio.create_memory_object_stream[tuple[str, dict[str, Any]]](1000)
        cancelled: set[int] = set()

        def push(method: str, params: dict[str, Any]) -> None:
            # A client that does not read misses news; its answers still wait for it.
            with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                send.send_nowait((method, params))

        def tell_change(sandbox: Sandbox) -> None:
            push("sandbox/didChange", convert.to_wire(sandbox))

        def hear(method: str, params: dict[str, Any]) -> None:
            if method == "$/cancelRequest" and isinstance(id_ := params.get("id"), int):
                cancelled.add(id_)
                self._supervisor.leave((number, id_))
            elif method in executions.METHODS:
                self._supervisor.executions.hear(number, method, params)

        async def answer(method: str, params: dict[str, Any], id_: int) -> Any:
            if id_ in cancelled:  # the cancel came in the same breath
                if method == "sandbox/start":
                    await self._supervisor.give_up()
                raise RequestCancelled
            if method == "sandbox/exec":
                # Its output is waited for, so it does not go by `push`.
                return convert.to_wire(
                    await self._supervisor.executions.run(
                        params, (number, id_), peer.tell, peer.gone
                    )
                )
            if method in executions.METHODS:
                return await self._supervisor.executions.take(number, method, params)
            return await self._answer(method, params, (number, id_), push)

        async with stream:
            peer = Peer(stream, answer=answer, hear=hear)
            async with anyio.create_task_group() as group:
                greeting = {
                    "name": self._supervisor.store.sandbox.name,
                    "pid": os.getpid(),
                    "version": __version__,
                }
                await peer.tell(wire.GREETING, greeting)
                self._supervisor.store.listen(number, tell_change)
                group.start_soon(self._deliver, peer, receive)
                self._peers.add(peer)
                try:
                    await peer.run()
                finally:
                    self._peers.discard(peer)
                    self._supervisor.store.unlisten(number)
                    group.cancel_scope.cancel()

    async def _answer(
        self,
        method: str,
        params: dict[str, Any],
        waiter: tuple[int, int],
        push: Callable[[str, dict[str, Any]], None],
    ) -> Any:
        def report(progress: Progress) -> None:
            push("$/progress", {"token": waiter[1], "value": convert.to_wire(progress)})

        match method:
            case "sandbox/status":
                return convert.to_wire(self._supervisor.store.sandbox)
            case "sandbox/start":
                wanted = _fitting(params, StartRequest)
                self.asked.set()
                return convert.to_wire(await self._supervisor.start(wanted, waiter, report))
            case "port/forward":
                port = _fitting(params, PortForwardParams)
                return convert.to_wire(
                    await self._supervisor.ports.forward(port.guest_port, port.host_port)
                )
            case "port/close":
                closing = _fitting(params, PortCloseParams)
                return convert.to_wire(await self._supervisor.ports.close(closing.host_port))
            case "console/write":
                await self._supervisor.type(bytes.fromhex(str(params.get("data", ""))))
                return None
            case "console/resize":
                applied = await self._supervisor.resize(params.get("columns"), params.get("rows"))
                return {"applied": applied}
            case "sandbox/stop":
                self.asked.set()
                force = bool(params.get("force", False))
                limit = params.get("limitS")
                limit_s = float(limit) if isinstance(limit, (int, float)) else 0.0
                return convert.to_wire(
                    await self._supervisor.stop(waiter, report, force=force, limit_s=limit_s)
                )
        raise LookupError(method)

    async def _deliver(self, peer: Peer, news: Any) -> None:
        async for method, params in news:
            await peer.tell(method, params)


def _fitting(params: dict[str, Any], kind: type[T]) -> T:
    try:
        return convert.from_wire(params, kind)
    except convert.Misfit as error:
        raise SettingInvalid(f"The request does not fit: {error}.") from None
