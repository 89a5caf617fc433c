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
QUIET_S = 0.2
"""How long nothing must be under way; what QEMU took before is with the guest then."""
PROBE = struct.pack(">I", 60) + bytes(12) + b"\x88\xb5" + bytes(46)
"""A frame to nobody, of a type for experiments (IEEE 802): QEMU reads it only if it holds none."""
CHUNK = 1 << 20


async def let_go(peer: socket.socket) -> None:
    """Close the end of a process that has died, as soon as QEMU holds no frame from it.

    Until then what QEMU sends is thrown away: it writes with a call that blocks.
    """
    with peer:
        busy, pause, probed = anyio.current_time(), PAUSE_S, False
        while anyio.current_time() < busy + QUIET_S:
            try:
                if not _swallow(peer):
                    return
                if _under_way(peer):
                    busy, pause = anyio.current_time(), min(LONGEST_S, pause * 1.2)
                elif not probed:
                    # It fits into a buffer that is empty.
                    peer.send(PROBE)
                    busy, pause, probed = anyio.current_time(), PAUSE_S, True
            except OSError:
                return
            with anyio.move_on_after(pause):
                await anyio.wait_readable(peer)


def _swallow(peer: socket.socket) -> bool:
    """Read all there is; False where QEMU has gone."""
    try:
        while peer.recv(CHUNK):
            pass
    except BlockingIOError:
        return True
    return False


def _under_way(peer: socket.socket) -> int:
    """Bytes that QEMU has not read yet, with the kernel's own for them."""
    count: int = struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]
    return count
