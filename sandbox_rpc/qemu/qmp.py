"""QEMU's control protocol: one reader task, answers by id, events on a stream.

The monitor serves one client and leaves a second one waiting without a word, so the supervisor is
the only one to open it. (The library qemu.qmp was weighed and refused: docs/decisions.)
"""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from sandbox_rpc.host import sockets
from sandbox_rpc.protocol.errors import QemuFailed

MAX_LINE = 4 << 20
REPLY_LIMIT_S = 30


class QmpError(Exception):
    """QEMU refused a command; `kind` is its error class."""

    def __init__(self, kind: str, description: str) -> None:
        super().__init__(description)
        self.kind = kind


class Qmp:
    """An open session; made by `connect`."""

    def __init__(self, stream: sockets.Stream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[anyio.Event, list[dict[str, Any]]]] = {}
        self._open = True
        self._publish, self.events = anyio.create_memory_object_stream[dict[str, Any]](256)

    @property
    def is_open(self) -> bool:
        """Whether QEMU still answers."""
        return self._open

    async def execute(
        self, command: str, *, descriptor: int | None = None, **arguments: Any
    ) -> Any:
        """Run a command; underscores in argument names stand for dashes.

        A copy of `descriptor` goes along, for `getfd`.

        Raises:
            QmpError: QEMU refused it.
            QemuFailed: QEMU ended, or did not answer within 30 s.
        """
        if not self._open:
            raise QemuFailed(f"QEMU ended before {command}.")
        id_, done = next(self._ids), anyio.Event()
        reply: list[dict[str, Any]] = []
        self._waiting[id_] = done, reply
        request: dict[str, Any] = {"execute": command, "id": id_}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        try:
            with anyio.fail_after(REPLY_LIMIT_S):
                line = json.dumps(request).encode() + b"\n"
                if descriptor is None:
                    await self._stream.send(line)
                else:
                    await self._stream.send_with(line, descriptor)
                await done.wait()
        except TimeoutError:
            raise QemuFailed(f"QEMU did not answer {command} within {REPLY_LIMIT_S} s.") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            reply.clear()
        finally:
            del self._waiting[id_]
        if not reply:
            raise QemuFailed(f"QEMU ended during {command}.")
        if error := reply[0].get("error"):
            raise QmpError(error["class"], error["desc"])
        return reply[0]["return"]

    async def human(self, line: str) -> str:
        """Run a command of the human monitor; its answer is text, also where it is an error."""
        return str(await self.execute("human-monitor-command", command_line=line))

    async def greet(self) -> None:
        """Read the greeting and leave the negotiation mode."""
        with anyio.fail_after(REPLY_LIMIT_S):
            await self._lines.receive_until(b"\n", MAX_LINE)

    async def read(self) -> None:
        """Deliver answers and events until the connection ends."""
        try:
            while True:
                message = json.loads(await self._lines.receive_until(b"\n", MAX_LINE))
                if "event" in message:
                    # Where nobody listens, commands matter more than events.
                    with suppress(anyio.WouldBlock, anyio.BrokenResourceError):
                        self._publish.send_nowait(message)
                elif waiter := self._waiting.get(message.get("id")):
                    waiter[1].append(message)
                    waiter[0].set()
        except (
            anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError,
            anyio.BrokenResourceError, anyio.DelimiterNotFound, ValueError,
        ):  # fmt: skip
            pass
        finally:
            self._open = False
            self._publish.close()
            for done, _ in self._waiting.values():
                done.set()


async def connect(path: Path, group: anyio.abc.TaskGroup) -> Qmp:
    """Open a session on the monitor at `path`; its reader runs in `group` until QEMU ends.

    Raises:
        QemuFailed: nobody answers there.
    """
    try:
        stream = await sockets.connect(path)
        qmp = Qmp(stream)
        await qmp.greet()
    except (TimeoutError, anyio.EndOfStream, anyio.IncompleteRead, OSError) as error:
        raise QemuFailed("QEMU's control socket does not answer.") from error
    group.start_soon(qmp.read)
    await qmp.execute("qmp_capabilities")
    return qmp
