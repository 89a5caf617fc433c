"""Answers to packets that are refused, so that a guest's program fails at once. Pure.

A frame here begins with its Ethernet header; it is IPv4 without options (`gate` has seen to that).
"""

from __future__ import annotations

import struct

ETHERNET = 14
IP = 20
FIN, SYN, RST, PUSH, ACK, URG = 1, 2, 4, 8, 16, 32
TTL = 64
UNREACHABLE, ADMIN_PROHIBITED = 3, 13
QUOTED = 28
"""Bytes of the refused packet in an ICMP error: its IP header and eight more."""


def checksum(data: bytes) -> int:
    """The internet's checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet with a right checksum."""
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x45, 0, IP + len(payload), 0, 0x4000, TTL, protocol, 0, source, destination,
    )  # fmt: skip
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def _answer(frame: bytes, protocol: int, payload: bytes) -> bytes:
    source, destination = frame[26:30], frame[30:34]
    answer = packet(destination, source, protocol, payload)
    return frame[6:12] + frame[0:6] + b"\x08\x00" + answer


def reset(frame: bytes) -> bytes | None:
    """The TCP segment that ends the connection of a refused one; None where there must be none."""
    segment = frame[ETHERNET + IP :]
    if len(segment) < 20:
        return None
    ports, sequence, acknowledged, offset, flags = struct.unpack_from(">4sIIBB", segment)
    if flags & RST:
        return None
    if flags & ACK:
        # RFC 9293, 3.10.7.1: the number the peer expects next, and nothing to acknowledge.
        numbers = (acknowledged, 0, RST)
    else:
        total = int.from_bytes(frame[16:18], "big")
        length = max(0, total - IP - (offset >> 4) * 4) + bool(flags & SYN) + bool(flags & FIN)
        numbers = (0, (sequence + length) & 0xFFFFFFFF, RST | ACK)
    head = struct.pack(
        ">2s2sIIBBHHH", ports[2:4], ports[0:2], numbers[0], numbers[1], 0x50, numbers[2], 0, 0, 0
    )
    pseudo = frame[30:34] + frame[26:30] + struct.pack(">BBH", 0, 6, len(head))
    head = head[:16] + checksum(pseudo + head).to_bytes(2, "big") + head[18:]
    return _answer(frame, 6, head)


def prohibited(frame: bytes) -> bytes | None:
    """The ICMP error for a refused packet; None for one that must not be answered so."""
    quoted = frame[ETHERNET : ETHERNET + QUOTED]
    if len(quoted) < QUOTED or frame[0] & 1 or int.from_bytes(frame[20:22], "big") & 0x1FFF:
        return None  # never about what was sent to many, nor about a later fragment
    if frame[23] == 1 and frame[34] not in (8, 13, 15, 17):
        return None  # never about an ICMP error or answer
    body = struct.pack(">BBHI", UNREACHABLE, ADMIN_PROHIBITED, 0, 0) + quoted
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return _answer(frame, 1, body)


def without_urgency(frame: bytearray | memoryview, start: int) -> None:
    """Take the urgent mark off the TCP segment of the frame at `start`, in place.

    libslirp before 4.9.2 reads past its buffer where a guest's urgent pointer says so.
    """
    tcp = start + ETHERNET + IP
    old = bytes(frame[tcp + 12 : tcp + 14]) + bytes(frame[tcp + 18 : tcp + 20])
    frame[tcp + 13] &= ~URG & 0xFF
    frame[tcp + 18 : tcp + 20] = b"\0\0"
    new = bytes(frame[tcp + 12 : tcp + 14]) + b"\0\0"
    # RFC 1624: the checksum follows from what was changed alone.
    total = ~int.from_bytes(frame[tcp + 16 : tcp + 18], "big") & 0xFFFF
    for word in (old[:2], old[2:]):
        total += ~int.from_bytes(word, "big") & 0xFFFF
    total += int.from_bytes(new[:2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    frame[tcp + 16 : tcp + 18] = (~total & 0xFFFF).to_bytes(2, "big")
