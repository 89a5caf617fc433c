"""The machine's network process: started, watched, replaced when it dies."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import partial

import anyio
import anyio.to_thread

from sandbox_rpc.config.settings import Settings
from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import control, launch, resolver, slirp
from sandbox_rpc.network.launch import Running, Wish
from sandbox_rpc.network.policy import Mode, parse_rule
from sandbox_rpc.network.settings import Route
from sandbox_rpc.protocol.errors import NetworkFailed, SandboxError, SettingInvalid
from sandbox_rpc.protocol.types import Layer

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Between two tries to replace it."""


def support() -> slirp.Support:
    """Whether this host can have a network process; else QEMU's own stack has to do."""
    return slirp.probe()


def wish(settings: Settings, room: Room) -> Wish:
    """What the settings say about the network.

    Raises:
        RuleInvalid, SettingInvalid: they say nonsense.
    """
    rules = tuple(filter(None, settings.allow_addresses.split(",")))
    for rule in rules:
        parse_rule(rule)
    ports = tuple(int(port) for port in settings.allow_host_ports.split(",") if port)
    if any(not 0 < port < 65536 for port in ports):
        raise SettingInvalid("allow.host_ports holds no port.", setting="allow.host_ports")
    mode = Mode(str(settings.network))
    routes = (Route(str(room.proxy_socket)),) if mode is Mode.PROXY else ()
    if routes:
        room.proxy_socket.parent.mkdir(mode=0o700, exist_ok=True)
    return Wish(mode, rules, ports, routes=routes, namespace=str(settings.box_namespace))


class Net:
    """The network of one machine. `port` is the loopback port of its SSH."""

    def __init__(self, room: Room, what: Wish, listeners: list[tuple[socket.socket, int]]) -> None:
        self._room = room
        self._wish = what
        self._listeners = listeners
        self._running: Running | None = None
        self._watched: Running | None = None
        self._closed = False
        self.port: int = next(
            one.getsockname()[1] for one, _ in listeners if one.family == socket.AF_INET
        )

    @classmethod
    async def start(cls, room: Room, what: Wish, *, preferred: int | None, guest_port: int) -> Net:
        """Take a port, the preferred one if it is free, and start the process.

        Raises:
            NetworkFailed: it did not come up.
        """
        net = cls(room, what, _listeners(room, preferred, guest_port))
        try:
            await net._launch()
        except BaseException:
            net.close()
            raise
        return net

    @classmethod
    async def adopt(cls, room: Room, what: Wish, *, preferred: int | None, guest_port: int) -> Net:
        """Take over the process that another supervisor has started, or replace it.

        Raises:
            NetworkFailed: neither worked.
        """
        try:
            running = launch.attach(room.network_control)
            listing, descriptors = control.call(running.control, "forward/list")
        except SandboxError:
            return await cls.start(room, what, preferred=preferred, guest_port=guest_port)
        listeners = [
            (socket.socket(fileno=fd), int(one["guest_port"]))
            for one, fd in zip(listing, descriptors, strict=True)
        ]
        net = cls(room, what, listeners)
        net._running, net._watched = running, launch.attach(room.network_control)
        return net

    async def watch(self) -> None:
        """Replace the process whenever it dies, and tell it of new name servers; until cancelled.

        It ends by itself when its machine has ended.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow_resolver)
            while not self._closed:
                if self._watched is None:
                    break
                try:
                    await anyio.wait_readable(self._watched.control)
                except anyio.ClosedResourceError:
                    break  # closed by us, the machine having ended
                log.info("the network process has ended")
                self._forget()
                while not self._closed:
                    try:
                        await self._launch()
                        log.info("the network process was replaced")
                        break
                    except SandboxError as error:
                        log.warning("it cannot be replaced: %s", error)
                        await anyio.sleep(AGAIN_S)
            group.cancel_scope.cancel()

    def layers(self) -> list[Layer]:
        """The walls around the process."""
        if self._running is None:
            return []
        found = control.call(self._running.control, "status")[0]["layers"]
        return [
            Layer(f"network.{one['name']}", bool(one["active"]), str(one["detail"]))
            for one in found
        ]

    def close(self) -> None:
        """Let go of the ports; the process itself ends with its machine."""
        self._closed = True
        self._forget()
        for listener, _ in self._listeners:
            listener.close()

    def _forget(self) -> None:
        for one in (self._running, self._watched):
            if one is not None:
                anyio.notify_closing(one.control)
                one.control.close()
        self._running = self._watched = None

    async def _launch(self) -> None:
        room = self._room
        self._running = await anyio.to_thread.run_sync(
            partial(
                launch.launch, self._wish, qemu=room.network_socket,
                control_socket=room.network_control, listeners=self._listeners,
                log=room.network_log,
            )
        )  # fmt: skip
        if self._closed:
            self._forget()
            return
        self._watched = launch.attach(room.network_control)

    async def _follow_resolver(self) -> None:
        watch = resolver.Watch()
        try:
            while True:
                await anyio.wait_readable(watch.fileno())
                text = watch.read()
                if self._running is not None:
                    with suppress(NetworkFailed):
                        control.call(self._running.control, "resolver", text=text)
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
