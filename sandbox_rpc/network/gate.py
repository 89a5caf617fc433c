"""The frame path: cut the stream into frames, let through what the policy allows, refuse the rest.

Every frame of the guest passes `Gate.admit`, so its common case does one unpack and two look-ups.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from sandbox_rpc.network import refusal
from sandbox_rpc.network.policy import ICMP, TCP, UDP, Policy

MAX_FRAME = 4096 + 65_536
"""Bytes QEMU passes on at most, whatever the guest's driver says (its NET_BUFSIZE)."""
MAX_ADMITTED = 14 + 65_535
"""Bytes of the largest IPv4 packet and its Ethernet header."""
ETHERNET_ARP = 0x0806
ETHERNET_IPV4 = 0x0800
ICMP_PER_S = 50
"""Errors sent for refused packets; a guest that floods gets no more."""
REMEMBERED = 64
"""Refused destinations kept for `status`."""

# Ethernet: type; IPv4: version and length, fragment, protocol, destination; then, where it is TCP:
# destination port and flags.
_HEAD = struct.Struct(">I12xHBxH2xHxB2x4x4s2xH9xB")
_REACH = _HEAD.size


class FrameError(Exception):
    """QEMU's stream is out of step; nothing after this can be trusted."""


class Gate:
    """Between the guest and libslirp, in both directions."""

    def __init__(
        self,
        policy: Policy,
        deliver: Callable[[int, int], None],
        reply: Callable[[bytes], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._deliver = deliver
        self._reply = reply
        self._now = now
        self._errors_left = float(ICMP_PER_S)
        self._errors_at = now()
        self.admitted = 0
        self.refused = 0
        self.dropped = 0
        """Frames that are not answered: no IPv4, no ARP, malformed, fragments."""
        self.refusals: dict[tuple[bytes, int, int], tuple[str, int]] = {}
        """(destination, protocol, port) → (reason, how often), the latest last."""

    def admit(self, buffer: bytearray, base: int, end: int) -> int:
        """Take the frames in `buffer[:end]`, which lies at address `base`; returns bytes used.

        Raises:
            FrameError: a length that no frame has.
        """
        position = 0
        unpack, deliver, consider = _HEAD.unpack_from, self._deliver, self._consider
        open_addresses = self._policy.open
        admitted = 0
        while position + 4 <= end:
            if position + _REACH <= end:
                size, kind, version, total, fragment, protocol, to, _, flags = unpack(
                    buffer, position
                )
            else:
                size = int.from_bytes(buffer[position : position + 4], "big")
                kind = 0
            start = position + 4
            if size > MAX_FRAME:
                raise FrameError(f"a frame of {size} bytes")
            if start + size > end:
                break
            if size > MAX_ADMITTED:
                self.dropped += 1
            elif (
                kind == ETHERNET_IPV4
                and version == 0x45
                and not fragment & 0xBFFF
                and to in open_addresses
                and protocol == TCP
                and not flags & 32
                # What was unpacked lies in this very frame, not in the next one.
                and 40 <= total <= size - 14
            ) or consider(buffer, start, size):
                deliver(base + start, size)
                admitted += 1
            position = start + size
        self.admitted += admitted
        return position

    def may_enter(self, buffer: bytearray, start: int) -> bool:
        """Whether a frame from libslirp may go to the guest.

        Its UDP sockets take datagrams from anybody who guesses their port; the guest gets those of
        whom it may talk to.
        """
        if buffer[start + 23] != UDP or buffer[start + 12] != 8 or buffer[start + 13] != 0:
            return True
        source = bytes(buffer[start + 26 : start + 30])
        if source in self._policy.open:
            return True
        port = int.from_bytes(buffer[start + 34 : start + 36], "big")
        return self._policy.judge(source, UDP, port, opens=True).allowed

    def _consider(self, buffer: bytearray, start: int, size: int) -> bool:
        """Decide about a frame off the common path; answers it where it is refused."""
        kind = (buffer[start + 12] << 8) | buffer[start + 13] if size >= 34 else 0
        if kind == ETHERNET_ARP and size >= 42:
            return True
        # IPv6 is refused as a whole, VLAN tags, libslirp's own NC-SI and all else with it.
        if kind != ETHERNET_IPV4 or buffer[start + 14] != 0x45:
            self.dropped += 1
            return False
        total = (buffer[start + 16] << 8) | buffer[start + 17]
        if not 20 <= total <= size - 14:
            self.dropped += 1
            return False
        fragment = (buffer[start + 20] << 8) | buffer[start + 21]
        protocol = buffer[start + 23]
        if fragment & 0xBFFF:
            # A port rule could not see into the second one, and reassembly has had its faults.
            self._refuse(buffer, start, size, protocol, 0, "a fragment")
            return False
        length = total - 20
        port, opens = 0, True
        if protocol == TCP:
            if length < 20:
                self.dropped += 1
                return False
            port = (buffer[start + 36] << 8) | buffer[start + 37]
            flags = buffer[start + 47]
            opens = flags & (refusal.SYN | refusal.ACK) == refusal.SYN
        elif protocol == UDP:
            if length < 8:
                self.dropped += 1
                return False
            port = (buffer[start + 36] << 8) | buffer[start + 37]
        elif protocol != ICMP or length < 8:
            self.dropped += 1
            return False
        to = bytes(buffer[start + 30 : start + 34])
        verdict = self._policy.judge(to, protocol, port, opens=opens)
        if not verdict.allowed:
            self._refuse(buffer, start, size, protocol, port, verdict.reason)
            return False
        if protocol == TCP and flags & refusal.URG:
            refusal.without_urgency(buffer, start)
        return True

    def _refuse(
        self, buffer: bytearray, start: int, size: int, protocol: int, port: int, reason: str
    ) -> None:
        self.refused += 1
        frame = bytes(buffer[start : start + min(size, 96)])
        key = (frame[30:34], protocol, port)
        _, count = self.refusals.pop(key, ("", 0))
        if len(self.refusals) >= REMEMBERED:
            del self.refusals[next(iter(self.refusals))]
        self.refusals[key] = (reason, count + 1)
        if protocol == TCP and not int.from_bytes(frame[20:22], "big") & 0xBFFF:
            answer = refusal.reset(frame)
        elif self._may_send_error():
            answer = refusal.prohibited(frame)
        else:
            answer = None
        if answer is not None:
            self._reply(answer)

    def _may_send_error(self) -> bool:
        now = self._now()
        gained = (now - self._errors_at) * ICMP_PER_S
        self._errors_left = min(float(ICMP_PER_S), self._errors_left + gained)
        self._errors_at = now
        if self._errors_left < 1:
            return False
        self._errors_left -= 1
        return True
