"""The host's end of the guest agent's port; the protocol is written at the top of `agent.pl`.

Everything that arrives comes from the guest and is not trusted: lines are bounded, and anything
that is not of the protocol is dropped.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import secrets
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc

from sandbox_rpc.host import sockets
from sandbox_rpc.protocol.errors import GuestFailed

MAX_LINE = 1 << 16
WORDS = (b"ok", b"error")


class Agent:
    """A conversation with the agent; its reader runs in the given task group."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        # A late answer to a supervisor that has died must not pass for one to its successor.
        self._life = secrets.token_hex(4)
        self._ids = itertools.count(1)
        self._waiting: dict[str, tuple[anyio.Event, list[tuple[bool, bytes]]]] = {}
        self._settled = anyio.Event()
        self._heard = anyio.Event()
        self._reachable = anyio.Event()
        self._state = "silent"
        self._message = ""
        self._open = True

    @property
    def heard(self) -> anyio.Event:
        """Set with the first word from the guest: the kernel is up and runs user programs."""
        return self._heard

    @property
    def reachable(self) -> anyio.Event:
        """Set when the guest says that somebody may log in."""
        return self._reachable

    @property
    def is_ready(self) -> bool:
        """Whether it has said so."""
        return self._state == "ready"

    async def ready(self) -> None:
        """Wait until the agent has applied the identity and mounted the workspace.

        Raises:
            GuestFailed: it said that it could not.
        """
        await self._settled.wait()
        if self._state != "ready":
            raise GuestFailed(
                f"The guest could not take its identity: {self._message or 'the agent ended'}.",
                hint="The console log has more.",
            )

    async def ask(self, verb: str, payload: bytes = b"", *, timeout_s: float) -> bytes:
        """Send a verb and return the answer.

        Raises:
            GuestFailed: the agent has gone, or did not answer in time; or it refused, and the
                error's details have `refused`.
        """
        id_, done = self._new_id(), anyio.Event()
        reply: list[tuple[bool, bytes]] = []
        self._waiting[id_] = done, reply
        line = f"{id_} {verb}".encode()
        if payload:
            line += b" " + base64.b64encode(payload)
        try:
            with anyio.move_on_after(timeout_s):
                if self._open:
                    await self._stream.send(line + b"\n")
                    await done.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            reply.clear()
        finally:
            del self._waiting[id_]
        if not reply:
            raise GuestFailed(f"The guest's agent did not answer `{verb}` within {timeout_s:g} s.")
        fine, answer = reply[0]
        if not fine:
            raise GuestFailed(
                f"The guest's agent refused `{verb}`: {answer.decode(errors='replace')}",
                refused=True,
            )
        return answer

    async def tell(self, verb: str) -> None:
        """Send a verb whose answer nobody waits for."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stream.send(f"{self._new_id()} {verb}\n".encode())

    async def read(self) -> None:
        """Deliver answers and announcements until the port closes."""
        buffer = bytearray()
        try:
            async for chunk in self._stream:
                buffer += chunk
                *lines, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest[-MAX_LINE:])
                for line in lines:
                    self._take(line)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        finally:
            self._open = False
            self._settled.set()
            for done, _ in self._waiting.values():
                done.set()

    async def greet(self) -> None:
        """Ask for the state: a supervisor that takes over has missed the announcements."""
        answer = await self.ask("status", timeout_s=30)
        self._learn(answer)

    def _new_id(self) -> str:
        return f"{self._life}.{next(self._ids)}"

    def _take(self, line: bytes) -> None:
        head, _, rest = line.partition(b" ")
        word, _, encoded = rest.partition(b" ")
        try:
            payload = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return
        if head == b"*":
            self._heard.set()
            match word:
                case b"hello":
                    self._learn(payload)
                case b"reachable":
                    self._reachable.set()
                case b"ready":
                    self._settle("ready")
                case b"failed":
                    self._settle("failed", payload.decode(errors="replace"))
        elif (waiter := self._waiting.get(head.decode(errors="replace"))) and word in WORDS:
            waiter[1].append((word == b"ok", payload))
            waiter[0].set()

    def _learn(self, fields: bytes) -> None:
        known = dict(
            line.partition("=")[::2] for line in fields.decode(errors="replace").splitlines()
        )
        self._heard.set()
        if known.get("state") in ("ready", "failed"):
            self._settle(known["state"], known.get("message", ""))

    def _settle(self, state: str, message: str = "") -> None:
        self._state, self._message = state, message
        self._settled.set()


async def connect(path: Path, group: anyio.abc.TaskGroup) -> Agent:
    """Open the port; the reader runs in `group` until QEMU ends."""
    agent = Agent(await sockets.connect(path))
    group.start_soon(agent.read)
    return agent
