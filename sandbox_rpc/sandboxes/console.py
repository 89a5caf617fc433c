"""Follow a serial console from any offset: QEMU's own log is the truth, so nothing is lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable

import anyio

from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.host.watch import CLOSED, MOVED, Watch, is_unlinked, size_of
from sandbox_rpc.protocol.errors import ConsoleGone, SandboxNotRunning
from sandbox_rpc.protocol.streams import ConsoleEnd
from sandbox_rpc.sandboxes.status import status
from sandbox_rpc.supervisor import client
from sandbox_rpc.supervisor.wire import PeerGone

CHUNK = 1 << 16
GATHER_S = 0.005
"""How long small output is gathered: a message for each byte would cost more than it tells."""

LETTING_GO = 10
"""How often the machine's lock is asked after somebody has closed the log."""
LETTING_GO_S = 0.05
"""How long to wait in between: a process that ends closes its files one by one."""

Output = Callable[[int, bytes], Awaitable[None]]
"""Takes an offset and the bytes there; waits while its reader is slow."""


class Console:
    """One reader's place in the output of a machine; made by `attach`."""

    def __init__(
        self, layout: Layout, name: str, descriptor: int, offset: int, watch: Watch
    ) -> None:
        self._layout = layout
        self._watch = watch
        self._name = name
        self._descriptor = descriptor
        self._typing = anyio.Lock()
        self.offset = offset
        """Of the next byte."""
        self.size = size_of(descriptor)
        """Bytes since power-on when it was attached."""

    async def follow(self, output: Output, *, forever: bool) -> ConsoleEnd:
        """Deliver what there is and, if `forever`, what comes, until the machine ends."""
        # QEMU may have closed it before we watched.
        ended, checks = is_unlinked(self._descriptor), LETTING_GO
        while True:
            if data := self._read():
                await output(self.offset, data)
                self.offset += len(data)
            elif ended:
                return ConsoleEnd.STOPPED
            elif not forever:
                return ConsoleEnd.COMPLETE
            else:
                masks = 0
                with anyio.move_on_after(LETTING_GO_S if checks else None):
                    for _, mask in await self._watch.next():
                        masks |= mask
                    await anyio.sleep(GATHER_S)
                # The supervisor closes it too, whenever it has given its head back.
                checks = LETTING_GO if masks & CLOSED else max(0, checks - 1)
                ended = (
                    bool(masks & MOVED)
                    or is_unlinked(self._descriptor)
                    or (checks > 0 and self._is_over())
                )

    async def write(self, data: bytes) -> None:
        """Type; calls keep their order.

        Raises:
            ConsoleGone: the machine has ended.
        """
        async with self._typing:
            await self._ask("console/write", {"data": data.hex()})

    async def resize(self, columns: int, rows: int) -> bool:
        """Tell the guest the terminal's size; whether it took it."""
        answer = await self._ask("console/resize", {"columns": columns, "rows": rows})
        return isinstance(answer, dict) and bool(answer.get("applied"))

    def close(self) -> None:
        """Give the log back."""
        self._watch.close()
        os.close(self._descriptor)

    def _is_over(self) -> bool:
        try:
            return not locks.is_held(self._layout.home(self._name).vm_lock)
        except OSError:
            return False  # too many open files; QEMU's own end is told by the log as well

    def _read(self) -> bytes:
        while data := os.pread(self._descriptor, CHUNK, self.offset):
            # Asked after the read: for a slow reader the head may go while it looks.
            kept = _kept(self._descriptor, self.offset, self.offset + len(data))
            if kept == self.offset:
                break
            self.offset = kept
        return data

    async def _ask(self, method: str, params: dict[str, object]) -> object:
        try:
            return await client.ask(self._layout.home(self._name), method, params)
        except (PeerGone, SandboxNotRunning):
            raise ConsoleGone(f"The console of {self._name} has ended.") from None


async def attach(
    layout: Layout, name: str, *, offset: int | None = None, tail: int | None = None
) -> Console:
    """Open the console of a running sandbox at an offset, so many bytes before its end, or there.

    What has been given back to the file system (all but the last 64 MiB) is skipped.

    Raises:
        SandboxNotFound, SandboxNotRunning: it has no console.
    """
    sandbox = await status(layout, names.read(layout, name))
    if sandbox.console_log is None:
        raise SandboxNotRunning(f"{name} is {sandbox.state}.")
    try:
        # In a folder that QEMU may write: a link in the log's place is not followed, a pipe not
        # waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(sandbox.console_log, flags)
    except OSError as error:
        raise SandboxNotRunning(f"{name} has no console yet.", hint="Try again.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SandboxNotRunning(f"The console log of {name} is not a file any more.")
        size = size_of(descriptor)
        begin = size if offset is None and tail is None else max(0, offset or 0)
        if tail is not None:
            begin = max(0, size - max(0, tail))
        begin = _kept(descriptor, min(begin, size), size)
        return Console(layout, name, descriptor, begin, _watch(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _watch(descriptor: int) -> Watch:
    watch = None
    try:
        watch = Watch()
        watch.add_file(descriptor)
    except OSError as error:
        if watch is not None:
            watch.close()
        raise ConsoleGone(
            f"The console cannot be followed: {error.strerror}.",
            hint="Detach others, or raise the limit fs.inotify.max_user_instances.",
        ) from error
    return watch


def _kept(descriptor: int, offset: int, size: int) -> int:
    if offset >= size:
        return size
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:
        return offset
