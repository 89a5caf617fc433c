"""A terminal on the serial console: raw, both ways, until Ctrl+]."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc

from sandbox_rpc.console.filter import Filter
from sandbox_rpc.host import sockets
from sandbox_rpc.protocol.errors import ConsoleGone

ESCAPE = b"\x1d"
"""Ctrl+], as in telnet and in the socat line."""
CHUNK = 1 << 14


async def attach(socket: Path, *, raw: bool = False) -> bool:
    """Carry bytes between the terminal and the console; True where the user left it.

    `raw` passes everything the guest prints, also what sets the clipboard or asks the terminal.

    Raises:
        ConsoleGone: nobody serves the console.
    """
    try:
        stream = await sockets.connect(socket)
    except OSError as error:
        raise ConsoleGone(
            f"The console does not answer: {error.strerror}.", hint="Is the sandbox running?"
        ) from None
    show: Callable[[bytes], bytes] = (lambda data: data) if raw else Filter().feed
    left = False
    async with stream, anyio.create_task_group() as group:

        async def read_keys() -> None:
            nonlocal left
            left = await _type(stream)
            if left:
                group.cancel_scope.cancel()

        with _raw_terminal():
            group.start_soon(read_keys)
            async for data in stream:
                _write(show(data))
            group.cancel_scope.cancel()
    return left


async def _type(stream: anyio.abc.SocketStream) -> bool:
    keyboard = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(keyboard)
        data = os.read(keyboard, CHUNK)
        if not data:
            # Input from a pipe has ended; output goes on until the machine ends.
            return False
        before, escape, _ = data.partition(ESCAPE)
        if before:
            await stream.send(before)
        if escape:
            return True


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


@contextmanager
def _raw_terminal() -> Iterator[None]:
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
