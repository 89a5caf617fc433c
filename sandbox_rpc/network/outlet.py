"""Frames on their way to QEMU: gathered in one buffer, sent in one call, bounded."""

from __future__ import annotations

import ctypes
import socket

CAPACITY = 4 << 20
"""Bytes that wait for a QEMU that does not read; beyond it frames are dropped, as a cable would."""
EARLY = 8
"""Frames after which sending begins: QEMU and the guest work while we go on, else they take turns
with us, the window of 64 KiB being all that is ever under way."""

ACKNOWLEDGEMENT = 54
"""Bytes of a frame with a TCP segment that carries nothing else."""
ACK, TCP = 0x10, 6
THIN = 7
"""Acknowledgements left out in a row at most: the guest's window must keep moving."""


class Outlet:
    """The way out. `send` raises OSError when QEMU has gone."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._buffer = bytearray(CAPACITY)
        self._view = memoryview(self._buffer)
        self._base = ctypes.addressof((ctypes.c_char * CAPACITY).from_buffer(self._buffer))
        self._head = 0
        self._tail = 0
        self._blocked = False
        self._flushed = 0
        self._acknowledgement = 0
        self._thinned = 0
        self.sent = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Bytes that could not be sent yet."""
        return self._tail - self._head

    @property
    def buffer(self) -> bytearray:
        """What frames are written to."""
        return self._buffer

    def write(self, address: int, size: int) -> int:
        """Copy a frame from memory; where it begins in `buffer`, 0 where it was dropped."""
        tail = self._tail
        if tail + 4 + size > CAPACITY and not self._make_room(4 + size):
            self.dropped += 1
            return 0
        tail = self._tail
        self._buffer[tail : tail + 4] = size.to_bytes(4, "big")
        ctypes.memmove(self._base + tail + 4, address, size)
        self._tail = tail + 4 + size
        self.sent += 1
        return tail + 4

    def acknowledge(self, address: int) -> bool:
        """Write a frame of that size which lies there, if it is one; else it is for `write`.

        libslirp acknowledges each segment by itself. One that comes right after another of the same
        connection, and says the same and more, takes its place: QEMU and the guest are spared most.
        """
        frame = ctypes.string_at(address, ACKNOWLEDGEMENT)
        if frame[47] != ACK or frame[23] != TCP or frame[12] != 8 or frame[13]:
            return False
        before = self._acknowledgement
        if before and before + ACKNOWLEDGEMENT == self._tail and self._thinned < THIN:
            buffer = self._buffer
            if (
                buffer[before + 26 : before + 42] == frame[26:42]
                # Twice the same means a lost segment: both must arrive.
                and buffer[before + 42 : before + 50] != frame[42:50]
            ):
                buffer[before : before + ACKNOWLEDGEMENT] = frame
                self._thinned += 1
                return True
        sent = self.sent
        self.append(frame)
        self._acknowledgement = self._tail - ACKNOWLEDGEMENT if self.sent > sent else 0
        self._thinned = 0
        return True

    def take_back(self, size: int) -> None:
        """Undo the last `write`, of a frame of `size` bytes."""
        self._tail -= 4 + size
        self.sent -= 1

    def append(self, frame: bytes) -> None:
        """Write a frame of our own."""
        size = len(frame)
        if self._tail + 4 + size > CAPACITY and not self._make_room(4 + size):
            self.dropped += 1
            return
        end = self._tail + 4 + size
        self._buffer[self._tail : end] = size.to_bytes(4, "big") + frame
        self._tail = end
        self.sent += 1

    def flush_early(self) -> None:
        """Send, if much has gathered and QEMU was reading lately."""
        if self.sent - self._flushed >= EARLY and not self._blocked:
            self.flush()

    def flush(self) -> None:
        """Send what the socket takes now.

        Raises:
            OSError: QEMU has closed its end.
        """
        self._flushed = self.sent
        self._acknowledgement = 0  # what lies there from now on is another frame
        while self._head < self._tail:
            try:
                self._head += self._peer.send(self._view[self._head : self._tail])
            except BlockingIOError:
                self._blocked = True
                return
        self._blocked = False
        self._head = self._tail = 0

    def _make_room(self, size: int) -> bool:
        waiting = self._tail - self._head
        if waiting + size > CAPACITY or self._head < CAPACITY // 2:
            return False
        self._buffer[:waiting] = self._buffer[self._head : self._tail]
        self._head, self._tail, self._acknowledgement = 0, waiting, 0
        return True
