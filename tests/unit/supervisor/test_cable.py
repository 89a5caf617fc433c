"""The cable between two network processes; at its other end a QEMU that reads when told to."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import anyio
import pytest

from sandbox_rpc.supervisor import cable
from sandbox_rpc.supervisor.cable import PROBE, QUIET_S, let_go

LIMIT_S = 60
UNREAD = 3 * QUIET_S
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


def test_it_waits_until_qemu_has_taken_all(pair: Pair) -> None:
    ours, qemus = pair

    async def main() -> None:
        ours.send(b"a frame, or half of one")
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(let_go, ours)
                await anyio.sleep(UNREAD)
                assert ours.fileno() >= 0
                assert await take(qemus) == b"a frame, or half of one"
                # That could have been one read of many frames that are still with QEMU.
                await anyio.wait_readable(qemus)
                await anyio.sleep(UNREAD)
                assert ours.fileno() >= 0
                assert await take(qemus) == PROBE
                assert await take(qemus) == b""
        assert ours.fileno() < 0

    anyio.run(main)


def test_what_qemu_writes_never_blocks_it(pair: Pair) -> None:
    """However much it is, and whether or not it reads."""
    ours, qemus = pair

    async def main() -> None:
        ours.send(b"a frame")
        left = 8 << 20
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(let_go, ours)
                while left > 0:
                    await anyio.wait_writable(qemus)
                    left -= qemus.send(bytes(1 << 16))
                assert ours.fileno() >= 0
                group.cancel_scope.cancel()
        assert ours.fileno() < 0

    anyio.run(main)


def test_it_ends_with_qemu(pair: Pair) -> None:
    ours, qemus = pair

    async def main() -> None:
        ours.send(b"a frame")
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(let_go, ours)
                await anyio.wait_all_tasks_blocked()
                qemus.close()
        assert ours.fileno() < 0

    anyio.run(main)


def test_the_probe_is_a_frame_to_nobody() -> None:
    assert len(PROBE) == 4 + int.from_bytes(PROBE[:4], "big")
    assert PROBE[4:10] == bytes(6)
    assert cable.PAUSE_S < cable.LONGEST_S
