"""The machine's network process, and its proxy: started, watched, replaced when one dies."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import partial

import anyio
import anyio.abc
import anyio.to_thread

from sandbox_rpc.host import process
from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import control, launch, resolver
from sandbox_rpc.network.launch import Running, Wish
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.protocol.errors import NetworkFailed, SandboxError
from sandbox_rpc.protocol.types import Forward, Layer
from sandbox_rpc.supervisor import cable
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.proxy import Proxy

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

AGAIN_S = 1.0
"""Between two tries to replace it."""
CONNECT_LIMIT_S = 2.0
CONNECT_PAUSE_S = 0.01
SSH_LISTENERS = 2
"""A port and a unix socket."""


class Net:
    """The network of one machine. `port` is the loopback port of its SSH."""

    def __init__(
        self,
        room: Room,
        what: Wish,
        listeners: list[tuple[socket.socket, int]],
        proxy: Proxy | None = None,
    ) -> None:
        self._room = room
        self._proxy = proxy
        self._wish = what
        self._listeners = listeners
        self._forwards: dict[int, tuple[socket.socket, int]] = {}
        self._changing = anyio.Lock()
        """Held while what the process listens to changes, also by its replacement."""
        self._running: Running | None = None
        self._watched: Running | None = None
        self._peer: socket.socket | None = None
        """The process's connection to QEMU, which so does not see it die; `cable` says why."""
        self._closed = False
        self.port: int = next(
            one.getsockname()[1] for one, _ in listeners if one.family == socket.AF_INET
        )

    @classmethod
    async def start(
        cls,
        room: Room,
        what: Wish,
        *,
        preferred: int | None,
        guest_port: int,
        plugged: anyio.Event | None = None,
    ) -> Net:
        """Take a port, the preferred one if it is free, and start the process.

        `plugged` is set when QEMU has a peer, a moment before the process is up.

        Raises:
            NetworkFailed: it did not come up.
        """
        proxy = Proxy.find(room) if what.mode is Mode.PROXY else None
        net = cls(room, what, _listeners(room, preferred, guest_port), proxy)
        try:
            net._peer = await net._connect()
            if plugged is not None:
                plugged.set()
            async with anyio.create_task_group() as group:
                group.start_soon(net._launch, net._peer)
                if proxy is not None:
                    group.start_soon(proxy.launch)
        except BaseException as error:
            await net.discard()
            raise unwrapped(error) from None
        return net

    @classmethod
    async def adopt(cls, room: Room, what: Wish, *, preferred: int | None, guest_port: int) -> Net:
        """Take over the process that another supervisor has started, or replace it.

        Raises:
            NetworkFailed: neither worked.
        """
        running = None
        try:
            running = launch.attach(room.network_control)
            listing, descriptors = control.call(running.control, "forward/list")
        except SandboxError:
            if running is not None and (deaf := process.identify(running.pid)) is not None:
                # QEMU would serve its connection, and the next one's would wait behind it.
                deaf.kill()
                running.control.close()
            return await cls.start(room, what, preferred=preferred, guest_port=guest_port)
        listeners = [
            (socket.socket(fileno=fd), int(one["guest_port"]))
            for one, fd in zip(listing, descriptors, strict=True)
        ]
        # It lists them in the order in which it got them: those of SSH first.
        proxy = Proxy.find(room) if what.mode is Mode.PROXY else None
        if proxy is not None:
            await proxy.launch()
        net = cls(room, what, listeners[:SSH_LISTENERS], proxy)
        net._forwards = {one.getsockname()[1]: (one, to) for one, to in listeners[SSH_LISTENERS:]}
        net._running, net._watched = running, launch.attach(room.network_control)
        with suppress(NetworkFailed):  # of one that an earlier version has started
            _, ends = control.call(running.control, "cable")
            net._peer = next((socket.socket(fileno=fd) for fd in ends), None)
        return net

    async def watch(self) -> None:
        """Replace the process whenever it dies, and tell it of new name servers; until cancelled.

        It ends by itself when its machine has ended.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow_resolver)
            if self._proxy is not None:
                group.start_soon(self._proxy.watch)
            while not self._closed:
                if self._watched is None:
                    break
                try:
                    await anyio.wait_readable(self._watched.control)
                except anyio.ClosedResourceError:
                    break  # closed by us, the machine having ended
                log.info("the network process has ended")
                self._drop(group)
                while not self._closed:
                    try:
                        self._peer = await self._connect()
                        await self._launch(self._peer)
                        log.info("the network process was replaced")
                        break
                    except (SandboxError, OSError, ValueError) as error:
                        # ValueError: of listeners that were closed meanwhile, the machine gone.
                        log.warning("it cannot be replaced: %s", error)
                        self._drop(group)
                        await anyio.sleep(AGAIN_S)
            group.cancel_scope.cancel()

    async def forwards(self) -> list[Forward]:
        """The ports that lead into the guest, beside that of SSH."""
        return [Forward(LOOPBACK, port, to) for port, (_, to) in self._forwards.items()]

    async def add(self, guest_port: int, host_port: int) -> Forward:
        """Let a port of the host, 0: any, lead to one of the guest.

        Raises:
            OSError: the port cannot be had.
            NetworkFailed: the process refuses.
        """
        async with self._changing:
            listener = launch.listen_on_loopback(host_port)
            port: int = listener.getsockname()[1]
            try:
                # One that has ended will be replaced by one that is started with it.
                await self._ask("forward/add", [listener.fileno()], guest_port=guest_port)
            except BaseException:
                listener.close()
                raise
            self._forwards[port] = (listener, guest_port)
            return Forward(LOOPBACK, port, guest_port)

    async def remove(self, host_port: int) -> None:
        """Let a port refuse again.

        Raises:
            NetworkFailed: the process does not answer.
        """
        async with self._changing:
            await self._ask("forward/remove", address=f"{LOOPBACK}:{host_port}")
            listener, _ = self._forwards.pop(host_port)
            listener.close()

    def layers(self) -> list[Layer]:
        """The walls around the process, and around the proxy."""
        if self._running is None:
            return []
        found = control.call(self._running.control, "status")[0]["layers"]
        walls = [
            Layer(f"network.{one['name']}", bool(one["active"]), str(one["detail"]))
            for one in found
        ]
        return walls if self._proxy is None else [*walls, *self._proxy.layers()]

    async def end(self) -> None:
        """End what does not end with the machine by itself."""
        if self._proxy is not None:
            await self._proxy.end()

    async def discard(self) -> None:
        """Close it and end all of it, before any machine has used it."""
        self.close()
        with anyio.CancelScope(shield=True):
            await self.end()

    def close(self) -> None:
        """Let go of the ports; the process itself ends with its machine."""
        self._closed = True
        self._forget()
        if self._peer is not None:
            self._peer.close()
        if self._proxy is not None:
            self._proxy.close()
        for listener, _ in (*self._listeners, *self._forwards.values()):
            listener.close()

    async def _ask(
        self, method: str, descriptors: list[int] | None = None, **params: object
    ) -> None:
        """Ask the process; one that has ended is passed over.

        On a connection for this question only: after one that was not answered in time, the next
        would get its answer.
        """

        def ask() -> None:
            running = launch.attach(self._room.network_control)
            with running.control:
                control.call(running.control, method, descriptors, **params)

        try:
            await anyio.to_thread.run_sync(ask)
        except NetworkFailed as failure:
            if not failure.details.get("ended"):
                raise

    def _drop(self, group: anyio.abc.TaskGroup) -> None:
        """Let go of a process that has ended, or never came up."""
        self._forget()
        if self._peer is not None:
            group.start_soon(cable.let_go, self._peer)
            self._peer = None

    def _forget(self) -> None:
        for one in (self._running, self._watched):
            if one is not None:
                anyio.notify_closing(one.control)
                one.control.close()
        self._running = self._watched = None

    async def _connect(self) -> socket.socket:
        """A connection that waits until QEMU takes it; it lets one wait."""
        limit = anyio.current_time() + CONNECT_LIMIT_S
        while True:
            try:
                return launch.connect_to_qemu(self._room.network_socket)
            except NetworkFailed as failure:
                if not failure.details.get("full") or anyio.current_time() > limit:
                    raise
            await anyio.sleep(CONNECT_PAUSE_S)

    async def _launch(self, peer: socket.socket) -> None:
        room = self._room
        async with self._changing:
            # Its own, which nobody closes meanwhile: the number could be another file's then.
            with peer.dup() as own:
                self._running = await anyio.to_thread.run_sync(
                    partial(
                        launch.launch, self._wish, peer=own,
                        control_socket=room.network_control, log=room.network_log,
                        listeners=[*self._listeners, *self._forwards.values()],
                    )
                )  # fmt: skip
        if self._closed:
            self._forget()
            peer.close()
            return
        self._watched = launch.attach(room.network_control)

    async def _follow_resolver(self) -> None:
        try:
            watch = resolver.Watch()
        except OSError as error:
            # As where all inotify instances are taken: a network that does not follow beats none.
            log.warning("changes of the resolver are not followed: %s", error)
            return
        try:
            while True:
                await anyio.wait_readable(watch.fileno())
                text = watch.read()
                with suppress(NetworkFailed):
                    await self._ask("resolver", text=text)
        finally:
            watch.close()


def _listeners(
    room: Room, preferred: int | None, guest_port: int
) -> list[tuple[socket.socket, int]]:
    try:
        tcp = launch.listen_on_loopback(preferred or 0)
    except OSError:
        tcp = launch.listen_on_loopback()
    return [(tcp, guest_port), (launch.listen_on_unix(room.ssh_socket), guest_port)]
