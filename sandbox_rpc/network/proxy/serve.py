"""The proxy of one machine: its visitors, its allowlist, its end."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from sandbox_rpc import __version__
from sandbox_rpc.host.watch import Watch
from sandbox_rpc.network.control import Answer, Control
from sandbox_rpc.network.proxy import names
from sandbox_rpc.network.proxy.dial import Dialler, connect
from sandbox_rpc.network.proxy.groups import REGISTRIES, parsed
from sandbox_rpc.network.proxy.journal import Journal
from sandbox_rpc.network.proxy.line import Ended, Line, Pace, relay
from sandbox_rpc.network.proxy.names import Address
from sandbox_rpc.network.proxy.request import Refused
from sandbox_rpc.network.proxy.rules import MAX_BYTES, Problem, Rule, Rules, parse, parse_rule
from sandbox_rpc.network.proxy.settings import Names, Start
from sandbox_rpc.network.proxy.visit import Visit
from sandbox_rpc.protocol.errors import NetworkFailed

log = logging.getLogger(__name__)

MOST = 800
"""Connections of the guest at a time; each takes two descriptors of the process's 2048."""
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 34\r\n"
    b"Connection: close\r\nX-Sandbox-Proxy: busy\r\n\r\nToo many connections at one time.\n"
)
IDLE_S = 1800.0
"""After which a connection is cut through which nothing goes."""
SWEEP_S = 15.0
NEWS_S = 0.2
"""Between two editions of the list of refusals."""
PAUSE_S = 0.05
FILES = ("allowlist.txt", "allowlist.once.txt")
"""What the user has allowed for good, and until the machine ends."""


class Proxy:
    """All of it; `run` returns when the machine has ended."""

    def __init__(self, start: Start, layers: list[tuple[str, bool, str]]) -> None:
        wish = start.wish
        self.layers = layers
        self._own_view = start.names is not None
        self._folder = Path(wish.folder)
        self._ports = wish.ports
        self._groups = parsed()
        self._groups[REGISTRIES] = [_registry(one.host, one.port) for one in wish.registries]
        self._resolver = names.Resolver(wish.registries)
        self._dialler = Dialler(self._resolver, wish.upstream)
        self._upstream = wish.upstream
        self._journal = Journal(Path(wish.journal))
        self._machine = start.machine
        self._relay = wish.relay
        self._listener = socket.socket(fileno=start.listener)
        self._listener.setblocking(False)
        self._visits: set[Visit] = set()
        self._served = 0
        self._cut = 0
        self._rules = Rules([], {})
        self._problems: list[tuple[str, Problem]] = []
        self._watch = Watch()
        self._watch.add_folder(self._folder, written=True)
        self.load()
        self._control = Control(socket.socket(fileno=start.control), self._serve)

    async def run(self, lock_down: Any) -> None:
        """Serve until the machine or somebody else ends it; `lock_down` is called before that."""
        async with anyio.create_task_group() as group:
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                self.layers += lock_down()
                group.start_soon(self._accept, group)
                group.start_soon(self._follow_control)
                group.start_soon(self._follow_rules)
                group.start_soon(self._sweep)
                group.start_soon(self._publish)
                if self._machine >= 0:
                    group.start_soon(self._end_with_machine, group.cancel_scope)
                async for _ in signals:
                    break
            group.cancel_scope.cancel()

    def close(self) -> None:
        """Close everything."""
        self._control.close()
        self._listener.close()
        self._journal.close()

    def load(self) -> None:
        """Read the allowlist, and cut connections that it does not allow any more."""
        rules: list[Rule] = []
        self._problems = []
        for name in FILES:
            found, problems = parse(_text(self._folder / name))
            rules += found
            self._problems += [(name, problem) for problem in problems]
        self._rules = Rules(rules, self._groups, self._ports)
        for visit in list(self._visits):
            target = visit.target
            if target is None or visit.cut is not None:
                continue
            if not self._rules.judge(target.host, target.port).allowed:
                visit.cut = "blocked"
                visit.scope.cancel()
                self._cut += 1

    async def _accept(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                await anyio.wait_readable(self._listener)
            except OSError:
                # Too many open files; those that are served go on.
                await anyio.sleep(PAUSE_S)
            else:
                if len(self._visits) >= MOST:
                    client.setblocking(False)
                    with suppress(OSError):
                        client.send(BUSY)
                    client.close()
                    continue
                group.start_soon(self._attend, client)

    async def _attend(self, client: socket.socket) -> None:
        if self._relay:
            await self._pass_on(Line(client))
            return
        visit = Visit(Line(client), self._judge, self._dialler, self._journal)
        self._visits.add(visit)
        self._served += 1
        try:
            await visit.run()
        except Exception:
            log.exception("serving a connection failed")
        finally:
            self._visits.discard(visit)

    async def _pass_on(self, guest: Line) -> None:
        """To the proxy in a container, which has no unix socket."""
        self._served += 1
        with suppress(Ended, Refused):
            address = Address(int(socket.AF_INET), "127.0.0.1")
            line, _ = await connect([address], self._relay, "the container")
            with closing(line):
                await relay(guest, line, Pace())
        guest.close()

    def _judge(self, host: str, port: int) -> Any:
        return self._rules.judge(host, port)

    async def _follow_rules(self) -> None:
        while True:
            for path, _ in await self._watch.next():
                if path.name in FILES or path == Path("/"):
                    self.load()
                    break

    async def _follow_control(self) -> None:
        # One descriptor that is readable when one of several is.
        poll = select.epoll()
        known: set[int] = set()
        try:
            while True:
                wanted = set(self._control.descriptors())
                for fd in wanted - known:
                    poll.register(fd, select.EPOLLIN)
                known = wanted
                await anyio.wait_readable(poll.fileno())
                for fd, _ in poll.poll(0):
                    self._control.handle(fd)
                # A closed one has left the poll by itself; its number may come again.
                known &= set(self._control.descriptors())
        finally:
            poll.close()

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(SWEEP_S)
            now = anyio.current_time()
            for visit in list(self._visits):
                if now - visit.pace.at > IDLE_S and visit.cut is None:
                    visit.cut = "idle"
                    visit.scope.cancel()

    async def _publish(self) -> None:
        while True:
            await anyio.sleep(NEWS_S)
            if self._journal.is_stale:
                self._journal.flush_blocked()

    async def _end_with_machine(self, scope: anyio.CancelScope) -> None:
        await anyio.wait_readable(self._machine)
        scope.cancel()

    def _serve(self, method: str, params: dict[str, Any], descriptors: list[int]) -> Answer:
        match method:
            case "status":
                return self._status(), []
            case "reload":
                self.load()
                return {"cut": self._cut}, []
            case "judge":
                return self._rules.judge(str(params["host"]), int(params["port"]))._asdict(), []
            case "listener":
                return {}, [self._listener.fileno()]
            case "names":
                self._resolver.forget()
                if self._own_view:
                    try:
                        names.write(Names(str(params["resolv"]), str(params["hosts"])))
                    except OSError as error:
                        raise NetworkFailed(f"Names cannot be kept: {error}.") from None
                return {}, []
        raise NetworkFailed(f"The proxy knows no {method}.")

    def _status(self) -> dict[str, Any]:
        upstream = self._upstream
        return {
            "version": __version__,
            "layers": [
                {"name": name, "active": active, "detail": detail}
                for name, active, detail in self.layers
            ],
            "connections": len(self._visits),
            "served": self._served,
            "rules": self._rules.size,
            "problems": [
                {"file": name, "line": one.line, "message": one.message}
                for name, one in self._problems
            ],
            "relay": self._relay or None,
            "registries": [rule.text for rule in self._groups[REGISTRIES]],
            "upstream": None if upstream is None else f"{upstream.host}:{upstream.port}",
            "journal_lost": self._journal.lost,
        }


def _registry(host: str, port: int) -> Rule:
    place = f"[{host}]" if ":" in host else host
    return parse_rule(f"{place}:{port}")


def _text(path: Path) -> str:
    try:
        # Nothing but a regular file, and not where a link leads.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
