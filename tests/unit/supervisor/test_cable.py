"""The cable between two network processes; at its other end a QEMU that reads when told to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from sandbox_rpc.supervisor.cable import FILLER, LONGEST_S, QUIET, let_go

LIMIT_S = 60
UNREAD_S = 5 * LONGEST_S
"""Long enough for a cable that were let go too early."""

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our end and QEMU's."""
    ours, qemus = socket.socketpair()
    with ours, qemus:
        for one in (ours, qemus):
            one.setblocking(False)
        yield ours, qemus


async def take(qemus: socket.socket) -> bytes:
    """What QEMU reads when it can, which is a moment later."""
    await anyio.wait_readable(qemus)
    return qemus.recv(1 << 20)


@asynccontextmanager
async def letting_go(ours: socket.socket) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Of a cable with something in it; at the end it is closed, within a limit."""
    ours.send(b"a frame, or half of one")
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(let_go, ours)
            yield group
    assert ours.fileno() < 0


def test_it_waits_until_qemu_has_taken_all(pair: Pair) -> None:
    ours, qemus = pair

    async def main() -> None:
        async with letting_go(ours):
            await anyio.sleep(UNREAD_S)
            assert await take(qemus) == b"a frame, or half of one"
            # That could have been one read of many frames that are still with QEMU.
            for number in range(2 * QUIET):
                if number == QUIET // 2:
                    await anyio.wait_readable(qemus)
                    await anyio.sleep(UNREAD_S)
                    assert ours.fileno() >= 0
                if not (taken := await take(qemus)):
                    break
                assert taken == FILLER
        assert number >= QUIET

    anyio.run(main)


def test_what_qemu_writes_never_blocks_it(pair: Pair) -> None:
    """However much it is, and whether or not it reads."""
    ours, qemus = pair

    async def main() -> None:
        left = 8 << 20
        async with letting_go(ours) as group:
            while left > 0:
                await anyio.wait_writable(qemus)
                left -= qemus.send(bytes(1 << 16))
            assert ours.fileno() >= 0
            group.cancel_scope.cancel()

    anyio.run(main)


@pytest.mark.parametrize("how", ["closed", "at its end"])
def test_it_ends_with_qemu(pair: Pair, how: str) -> None:
    ours, qemus = pair

    async def main() -> None:
        async with letting_go(ours):
            await anyio.sleep(UNREAD_S)
            assert ours.fileno() >= 0
            if how == "closed":
                qemus.close()
            else:
                qemus.shutdown(socket.SHUT_WR)

    anyio.run(main)


def test_the_filler_is_no_empty_frame_wherever_in_one_the_dead_process_stopped() -> None:
    """As QEMU reads the stream: a length of four bytes, and so many bytes; not within a length."""
    stream = FILLER * QUIET
    for missing in range(1, 4 * len(FILLER)):
        rest, lengths = stream[missing:], []
        while len(rest) >= 4:
            lengths.append(int.from_bytes(rest[:4], "big"))
            rest = rest[4 + lengths[-1] :]
        if missing % len(FILLER):
            assert lengths[0] > len(stream), missing
        else:
            assert set(lengths) == {60}


def test_the_filler_is_for_nobody() -> None:
    """An address that is one machine's, and none that anybody has been given by its maker."""
    assert FILLER[4] & 0b11 == 0b10
    assert len(FILLER) == 4 + int.from_bytes(FILLER[:4], "big")
