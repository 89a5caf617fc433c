"""The machine's proxy: started with what the settings say, watched, replaced when it dies."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandbox_rpc.config.choices import Network, ProxyBackend
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import files, process
from sandbox_rpc.host.paths import ProxyHome, Room
from sandbox_rpc.network import control, resolver
from sandbox_rpc.network.launch import Running, attach
from sandbox_rpc.network.port import check
from sandbox_rpc.network.proxy import allowlist, launch, names, settings
from sandbox_rpc.network.proxy.settings import Wish
from sandbox_rpc.protocol.errors import NetworkFailed, SandboxError
from sandbox_rpc.protocol.progress import Report
from sandbox_rpc.protocol.types import Layer
from sandbox_rpc.supervisor import request, upstream
from sandbox_rpc.supervisor.container import Container
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.supply import Supply

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Between two tries to replace it."""


def prepare(
    place: Place, wanted: Settings, supply: Supply, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Write down what the proxy of a start is to do, where it has one; warnings.

    Raises:
        SettingInvalid: a setting says nonsense.
        PermissionDenied, DiskFull: it cannot be written.
    """
    if wanted.network is not Network.PROXY:
        return []
    ports = tuple(int(port) for port in wanted.proxy_ports.split(",") if port)
    for port in ports:
        check(port, "proxy.ports")
    other, warnings = upstream.find(wanted, environment)
    home = place.layout.proxy(place.name)
    make_home(home, place.name)
    # What was allowed once was allowed to the machine before.
    home.once.unlink(missing_ok=True)
    wish = Wish(
        folder=str(home.folder), journal=str(home.journal), registries=supply.registries,
        ports=ports, upstream=other, namespace=str(wanted.box_namespace),
        container=place.name if wanted.proxy_backend is ProxyBackend.CONTAINER else None,
    )  # fmt: skip
    if wish.container is not None:
        warnings += Container(place.name, wish).write()
    files.replace(place.room.proxy_wish, settings.dump_wish(wish))
    return warnings


async def ready(place: Place, wanted: Settings, report: Report) -> None:
    """Have what the proxy needs that takes its time to make: a container's image.

    Raises:
        ToolMissing, BuildFailed, NetworkFailed: it cannot be had.
    """
    if wanted.network is Network.PROXY and wanted.proxy_backend is ProxyBackend.CONTAINER:
        wish = settings.parse_wish(place.room.proxy_wish.read_bytes())
        await Container(place.name, wish, wanted.build_mirror).ready(report)


def make_home(home: ProxyHome, name: str) -> None:
    """Make the folder of a sandbox's allowlist, and the first one.

    Raises:
        PermissionDenied, DiskFull: it cannot be made.
    """
    with files.translated(home.folder):
        home.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.folder.mkdir(mode=0o700, exist_ok=True)
        home.journal.mkdir(mode=0o700, exist_ok=True)
        if not home.allowlist.exists():
            files.replace(home.allowlist, allowlist.initial(name))


class Proxy:
    """The proxy of one machine; the socket that the guest comes to is kept while it is replaced."""

    def __init__(self, room: Room, listener: socket.socket) -> None:
        self._room = room
        self._listener = listener
        self._running: Running | None = None
        self._container: Container | None = None
        self._closed = False

    @classmethod
    def find(cls, room: Room) -> Proxy | None:
        """That of a machine, running or still to be launched; None where the machine has none.

        Raises:
            PermissionDenied, DiskFull: its socket cannot be made.
        """
        if not room.proxy_wish.exists():
            return None
        try:
            running = attach(room.proxy_control)
            _, (fd,) = control.call(running.control, "listener")
        except (SandboxError, ValueError):
            return cls(room, launch.listen(room.proxy_socket))
        # One that another supervisor has started, or this one before.
        found = cls(room, socket.socket(fileno=fd))
        found._running = running
        with suppress(OSError, ValueError, TypeError, KeyError):
            wish = settings.parse_wish(room.proxy_wish.read_bytes())
            found._container = Container(wish.container, wish) if wish.container else None
        return found

    async def launch(self) -> None:
        """Start the process, where none is running.

        Raises:
            NetworkFailed: it does not come up.
        """
        if self._running is not None:
            return
        room = self._room
        try:
            wish = settings.parse_wish(room.proxy_wish.read_bytes())
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise NetworkFailed(f"What the proxy should do is not known: {error!r}.") from None
        if wish.container is not None:
            self._container = self._container or Container(wish.container, wish)
            wish = wish._replace(relay=await self._container.start())
        note = request.noted(room)
        machine = note.process.open() if note is not None and note.process is not None else None
        if machine is None:
            raise NetworkFailed("There is no machine for the proxy.")
        try:
            self._running = await anyio.to_thread.run_sync(
                partial(
                    launch.launch, wish, listener=self._listener, machine=machine,
                    control_socket=room.proxy_control, log=room.proxy_log,
                )
            )  # fmt: skip
        finally:
            os.close(machine)
        if self._closed:
            self._forget()

    async def watch(self) -> None:
        """Replace the process whenever it dies; until cancelled. It ends with its machine."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow_names, resolver.RESOLV_CONF)
            group.start_soon(self._follow_names, names.HOSTS)
            if self._container is not None:
                group.start_soon(self._container.follow)
                group.start_soon(self._follow_container, self._container)
            while not self._closed and self._running is not None:
                try:
                    await anyio.wait_readable(self._running.control)
                except anyio.ClosedResourceError:
                    break
                log.info("the proxy has ended")
                self._forget()
                while not self._closed:
                    try:
                        await self.launch()
                        log.info("the proxy was replaced")
                        break
                    except (SandboxError, OSError, ValueError) as error:
                        log.warning("the proxy cannot be replaced: %s", error)
                        await anyio.sleep(AGAIN_S)
            group.cancel_scope.cancel()

    def layers(self) -> list[Layer]:
        """The walls around the process."""
        try:
            found = ask(self._room, "status")["layers"]
        except SandboxError:
            return []
        return [
            Layer(f"proxy.{one['name']}", bool(one["active"]), str(one["detail"])) for one in found
        ]

    async def end(self) -> None:
        """End what does not end with the machine by itself."""
        if self._container is not None:
            await self._container.stop()

    def close(self) -> None:
        """Let go of it; the process ends with its machine."""
        self._closed = True
        self._forget()
        self._listener.close()

    async def _follow_container(self, container: Container) -> None:
        """End the process before a container that has ended, so that both are started anew."""
        while not self._closed:
            life = container.life
            await container.ended()
            running = self._running
            if life == container.life and running is not None:
                log.info("the proxy's container has ended")
                if (relay := process.identify(running.pid)) is not None:
                    relay.kill()
            await anyio.sleep(AGAIN_S)

    def _forget(self) -> None:
        if self._running is not None:
            anyio.notify_closing(self._running.control)
            self._running.control.close()
        self._running = None

    async def _follow_names(self, path: Path) -> None:
        try:
            watch = resolver.Watch(path)
        except OSError as error:
            log.warning("changes of %s are not followed: %s", path, error)
            return
        try:
            while True:
                await anyio.wait_readable(watch.fileno())
                watch.read()
                with suppress(SandboxError):
                    found = await anyio.to_thread.run_sync(names.read)
                    await anyio.to_thread.run_sync(
                        partial(ask, self._room, "names", resolv=found.resolv, hosts=found.hosts)
                    )
        finally:
            watch.close()


def ask(room: Room, method: str, **params: object) -> dict[str, Any]:
    """Ask a machine's proxy, on a connection for this question alone; blocks.

    Raises:
        NetworkFailed: there is none, or it does not answer.
    """
    running = attach(room.proxy_control)
    with running.control:
        result: dict[str, Any] = control.call(running.control, method, None, **params)[0]
        return result
