"""Frames on their way to QEMU: whole, in order, bounded, and acknowledgements thinned."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator

import pytest

from sandbox_rpc.network.outlet import ACKNOWLEDGEMENT, CAPACITY, EARLY, THIN, Outlet
from tests.unit.network.test_gate import FAR, NEAR, tcp, udp


class Pair:
    """An outlet and the other end of its socket."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        self.near = near
        self.outlet = Outlet(near)
        self._rest = b""

    def write(self, frame: bytes) -> int:
        """Write a frame as libslirp does; where it begins."""
        keep = ctypes.create_string_buffer(frame, len(frame))
        return self.outlet.write(ctypes.addressof(keep), len(frame))

    def arrived(self) -> list[bytes]:
        """Whole frames that have come out."""
        found = []
        while True:
            self.outlet.flush()
            try:
                self._rest += self.far.recv(1 << 20)
            except BlockingIOError:
                break
        while len(self._rest) >= 4:
            size = int.from_bytes(self._rest[:4], "big")
            if len(self._rest) < 4 + size:
                break
            found.append(self._rest[4 : 4 + size])
            self._rest = self._rest[4 + size :]
        return found


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.near.close()
    made.far.close()


def test_frames_come_out_whole_and_in_order(pair: Pair) -> None:
    frames = [bytes([number % 256]) * (number + 1) for number in range(2000)]
    for number, frame in enumerate(frames):
        if number % 2:
            pair.write(frame)
        else:
            pair.outlet.append(frame)
    assert pair.arrived() == frames
    assert pair.outlet.waiting == 0
    assert pair.outlet.sent == len(frames)


def test_a_qemu_that_does_not_read_costs_frames_and_not_memory(pair: Pair) -> None:
    frame = bytes(9000)
    for _ in range(2 * CAPACITY // len(frame)):
        pair.write(frame)
        pair.outlet.flush_early()
    assert pair.outlet.dropped > 0
    assert pair.outlet.waiting <= CAPACITY
    arrived = pair.arrived()
    assert len(arrived) == pair.outlet.sent
    assert set(arrived) == {frame}
    pair.write(b"next")
    assert pair.arrived() == [b"next"]


def test_room_is_made_where_the_head_has_gone(pair: Pair) -> None:
    frame = bytes(60000)
    written = 0
    received = 0
    for _ in range(40):
        while pair.write(frame):
            written += 1
        pair.outlet.append(b"small")  # there may be room for it, or not
        received += sum(one == frame for one in pair.arrived())
    assert received == written
    assert written > 2 * CAPACITY // len(frame)


def test_sending_begins_early(pair: Pair) -> None:
    for _ in range(EARLY):
        pair.write(b"frame")
        pair.outlet.flush_early()
    assert pair.outlet.waiting == 0


def test_a_gone_qemu_is_an_error(pair: Pair) -> None:
    pair.far.close()
    pair.write(b"frame")
    with pytest.raises(OSError, match="Broken pipe"):
        pair.outlet.flush()


def acknowledgement(number: int, to: bytes = FAR, sequence: int = 7) -> bytes:
    return tcp(to, flags=16, sequence=sequence, acknowledged=number)


def thinned(pair: Pair, *frames: bytes) -> list[bytes]:
    for frame in frames:
        memory = ctypes.create_string_buffer(frame, len(frame))
        if len(frame) != ACKNOWLEDGEMENT or not pair.outlet.acknowledge(ctypes.addressof(memory)):
            pair.write(frame)
    return pair.arrived()


def test_later_acknowledgements_replace_earlier_ones(pair: Pair) -> None:
    frames = [acknowledgement(number) for number in range(1, 2 * (THIN + 1) + 1)]
    assert thinned(pair, *frames) == [frames[THIN], frames[-1]]


def test_what_says_something_else_stays(pair: Pair) -> None:
    again = acknowledgement(5)
    for frames in (
        [again, again],
        [acknowledgement(5), acknowledgement(6, NEAR)],
        [acknowledgement(5), acknowledgement(6, sequence=8)],
        [acknowledgement(5), tcp(flags=17, acknowledged=6)],
        [tcp(flags=17, acknowledged=5), acknowledgement(6)],
        [acknowledgement(5), tcp(flags=16, acknowledged=6, payload=b"x")],
        [tcp(flags=16, acknowledged=5, payload=b"x"), acknowledgement(6)],
        [acknowledgement(5), udp(payload=bytes(12)), acknowledgement(6)],
    ):
        assert thinned(pair, *frames) == frames


def test_what_was_sent_is_not_touched(pair: Pair) -> None:
    assert thinned(pair, acknowledgement(1)) == [acknowledgement(1)]
    assert thinned(pair, acknowledgement(2)) == [acknowledgement(2)]
    assert thinned(pair, acknowledgement(3), b"x" * 60, acknowledgement(4)) == [
        acknowledgement(3), b"x" * 60, acknowledgement(4),
    ]  # fmt: skip
