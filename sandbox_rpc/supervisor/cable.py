"""The guest's network cable between two network processes.

QEMU crashes when its peer goes while it holds frames that the guest has not taken: what completes
each of them looks for the connection that has gone (seen with 7.2; docs/decisions/netd.md). So the
supervisor holds the process's end too. A process that dies is then no end to QEMU, and the
connection is closed when nothing is left in it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

import anyio

PAUSE_S = 0.02
LONGEST_S = 0.5
"""Between two looks at a cable whose guest takes nothing, as one that is paused."""
QUIET = 10
"""Looks in a row that must find all read; what QEMU still held before is with the guest then."""
FILLER = struct.pack(">I", 60) + b"\x02" * 12 + b"\x88\xb5" + b"\x02" * 46
"""A frame to nobody, of a type for experiments (IEEE 802). QEMU does not read it while the guest
takes nothing. After half a frame of the dead process's it is taken for the other half and for a
length; none of those is zero, which QEMU would take for a guest that is not ready, for ever. (Where
the process stopped within a length itself, which takes a send cut short just there, it can be.)"""
CHUNK = 1 << 20
MOST = 16
"""Chunks thrown away in one go."""


async def let_go(peer: socket.socket) -> None:
    """Close the end of a process that has died, as soon as QEMU holds no frame from it.

    Until then what QEMU sends is thrown away: it writes with a call that blocks.
    """
    with peer:
        quiet, pause = 0, PAUSE_S
        while True:
            try:
                if not _swallow(peer):
                    return
                if _under_way(peer):
                    quiet, pause = 0, min(LONGEST_S, pause * 1.2)
                elif quiet == QUIET:
                    return
                else:
                    quiet, pause = quiet + 1, max(PAUSE_S, pause / 2)
                    peer.send(FILLER, socket.MSG_DONTWAIT)
                with anyio.move_on_after(pause):
                    while _swallow(peer):
                        await anyio.wait_readable(peer)
            except OSError:
                return


def _swallow(peer: socket.socket) -> bool:
    """Throw away what is there; False where QEMU has gone."""
    try:
        for _ in range(MOST):
            # Not by the descriptor's own mode: the process could have changed it.
            if not peer.recv(CHUNK, socket.MSG_DONTWAIT):
                return False
    except BlockingIOError:
        pass
    return True


def _under_way(peer: socket.socket) -> int:
    """Bytes that QEMU has not read yet, with the kernel's own for them."""
    count: int = struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]
    return count
