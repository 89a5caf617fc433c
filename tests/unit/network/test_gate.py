"""The frame path: what passes, what is answered how, and what nonsense does."""

from __future__ import annotations

import ctypes
import random
import struct
from ipaddress import IPv4Network

import pytest

from sandbox_rpc.network import refusal
from sandbox_rpc.network.gate import (
    ICMP_PER_S,
    MAX_ADMITTED,
    MAX_FRAME,
    REMEMBERED,
    FrameError,
    Gate,
)
from sandbox_rpc.network.policy import Mode, Policy, Terms, parse_rule

GUEST_MAC, ROUTER_MAC = bytes.fromhex("525400123456"), bytes.fromhex("525500000202")
GUEST = bytes([10, 0, 2, 15])
FAR, NEAR, ROUTER = bytes([9, 9, 9, 9]), bytes([192, 168, 1, 7]), bytes([10, 0, 2, 2])


class Bench:
    """A gate with both its ends in lists."""

    def __init__(self, mode: Mode = Mode.OPEN, **terms: object) -> None:
        self.policy = Policy(Terms(mode, **terms))  # type: ignore[arg-type]
        self.policy.set_own([IPv4Network("9.9.9.2/32")])
        self.delivered: list[bytes] = []
        self.answers: list[bytes] = []
        self.clock = 0.0
        self.gate = Gate(self.policy, self._deliver, self.answers.append, lambda: self.clock)

    def _deliver(self, address: int, size: int) -> None:
        self.delivered.append(ctypes.string_at(address, size))

    def stream(self, data: bytes) -> int:
        """Feed bytes as they come from QEMU; how many were used."""
        buffer = bytearray(data)
        keep = (ctypes.c_char * max(1, len(buffer))).from_buffer(buffer or bytearray(1))
        return self.gate.admit(buffer, ctypes.addressof(keep), len(data))

    def send(self, *frames: bytes) -> list[bytes]:
        """Feed frames; those that passed."""
        self.delivered.clear()
        data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
        assert self.stream(data) == len(data)
        return self.delivered


def ethernet(packet: bytes, kind: int = 0x0800) -> bytes:
    return ROUTER_MAC + GUEST_MAC + kind.to_bytes(2, "big") + packet


def tcp(
    to: bytes = FAR, port: int = 80, flags: int = 2, sequence: int = 7, payload: bytes = b"",
    acknowledged: int = 0, urgent: int = 0,
) -> bytes:  # fmt: skip
    head = struct.pack(
        ">HHIIBBHHH", 40000, port, sequence, acknowledged, 0x50, flags, 1024, 0, urgent
    )
    pseudo = GUEST + to + struct.pack(">BBH", 0, 6, len(head + payload))
    head = head[:16] + struct.pack(">H", refusal.checksum(pseudo + head + payload)) + head[18:]
    return ethernet(refusal.packet(GUEST, to, 6, head + payload))


def udp(to: bytes = FAR, port: int = 53, payload: bytes = b"?", source: bytes = GUEST) -> bytes:
    head = struct.pack(">HHHH", 50000, port, 8 + len(payload), 0)
    return ethernet(refusal.packet(source, to, 17, head + payload))


def sums_are_right(frame: bytes) -> bool:
    packet = frame[14:]
    if refusal.checksum(packet[:20]):
        return False
    if packet[9] == 1:
        return not refusal.checksum(packet[20:])
    pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)
    return not refusal.checksum(pseudo + packet[20:])


def test_frames_pass_whole_and_however_they_are_cut() -> None:
    frames = [tcp(), udp(), tcp(flags=16, payload=b"x" * 1400), udp(payload=b"y" * 900)]
    data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    for size in (1, 3, 50, 52, 1000, len(data)):
        bench = Bench()
        rest = b""
        for start in range(0, len(data), size):
            rest += data[start : start + size]
            rest = rest[bench.stream(rest) :]
        assert bench.delivered == frames
        assert not rest


def test_a_refused_syn_is_reset_at_once() -> None:
    bench = Bench()
    assert bench.send(tcp(NEAR, 5432, sequence=0xFFFFFFFF)) == []
    (answer,) = bench.answers
    assert sums_are_right(answer)
    assert (answer[:6], answer[6:12]) == (GUEST_MAC, ROUTER_MAC)
    assert (answer[26:30], answer[30:34]) == (NEAR, GUEST)
    source, to, sequence, acknowledged, _, flags = struct.unpack_from(">HHIIBB", answer, 34)
    assert (source, to) == (5432, 40000)
    assert (sequence, acknowledged, flags) == (0, 0, refusal.RST | refusal.ACK)


def test_a_segment_of_a_connection_is_reset_where_it_stands() -> None:
    bench = Bench()
    bench.send(tcp(NEAR, 80, flags=refusal.ACK, sequence=5, acknowledged=77, payload=b"abc"))
    sequence, acknowledged, _, flags = struct.unpack_from(">IIBB", bench.answers[0], 38)
    assert (sequence, acknowledged, flags) == (77, 0, refusal.RST)
    bench.send(tcp(NEAR, 80, flags=refusal.FIN, sequence=5, payload=b"abc"))
    sequence, acknowledged, _, flags = struct.unpack_from(">IIBB", bench.answers[1], 38)
    assert (sequence, acknowledged, flags) == (0, 9, refusal.RST | refusal.ACK)
    assert all(map(sums_are_right, bench.answers))


def test_a_reset_is_never_answered() -> None:
    bench = Bench()
    bench.send(tcp(NEAR, 80, flags=refusal.RST), tcp(NEAR, 80, flags=refusal.RST | refusal.ACK))
    assert bench.answers == []


def test_refused_datagrams_are_answered_but_not_without_end() -> None:
    bench = Bench()
    bench.send(udp(NEAR, 53))
    (answer,) = bench.answers
    assert sums_are_right(answer)
    assert (answer[34], answer[35]) == (3, 13)
    assert answer[42:70] == udp(NEAR, 53)[14:42]
    bench.send(*[udp(NEAR, 53)] * 1000)
    assert len(bench.answers) == ICMP_PER_S
    bench.clock += 0.1
    bench.send(*[udp(NEAR, 53)] * 1000)
    assert len(bench.answers) == ICMP_PER_S + ICMP_PER_S // 10


def test_icmp_errors_are_not_answered_with_icmp_errors() -> None:
    bench = Bench()
    echo = ethernet(refusal.packet(GUEST, NEAR, 1, b"\x08\0" + bytes(20)))
    error = ethernet(refusal.packet(GUEST, NEAR, 1, b"\x03\0" + bytes(20)))
    bench.send(error)
    assert bench.answers == []
    bench.send(echo)
    assert len(bench.answers) == 1


@pytest.mark.parametrize("flags", [2, 2 | 1, 2 | 4, 2 | 8, 2 | 32, 2 | 64 | 128])
def test_no_kind_of_syn_reaches_the_hosts_loopback(flags: int) -> None:
    bench = Bench(Mode.OFFLINE)
    assert bench.send(tcp(ROUTER, 5432, flags)) == []
    assert len(bench.send(tcp(ROUTER, 5432, flags | 16))) == 1


def test_fragments_are_refused_also_those_without_a_port() -> None:
    bench = Bench()
    for word in (0x2000, 0x0001, 0x3FFF, 0x8000):
        frame = bytearray(tcp())
        frame[20:22] = word.to_bytes(2, "big")
        assert bench.send(bytes(frame)) == []
    bench.send(tcp())
    for word in (0x2000, 0x0001):
        frame = bytearray(tcp())
        frame[20:22] = word.to_bytes(2, "big")
        assert bench.send(bytes(frame)) == [], "nor on the common path"


def test_what_is_not_plain_ipv4_or_arp_is_dropped() -> None:
    bench = Bench()
    plain = tcp()
    assert bench.send(plain) == [plain]
    arp = ethernet(bytes(28), 0x0806)
    assert bench.send(arp) == [arp]
    tagged = plain[:12] + b"\x81\x00\x00\x01" + plain[12:]
    for frame in (
        ethernet(bytes([0x60]) + bytes(60), 0x86DD),
        tagged,
        plain[:12] + b"\x88\xa8\x00\x01" + plain[12:],
        ethernet(bytes(60), 0x88F8),
        arp[:40],
        plain[:33],
        plain[:14],
        b"",
        plain[:53],
        plain[:14] + b"\x46" + plain[15:],
        plain[:14] + b"\x44" + plain[15:],
        plain[:14] + b"\x65" + plain[15:],
        plain[:16] + b"\xff\xff" + plain[18:],
        plain[:16] + b"\0\x10" + plain[18:],
        plain[:16] + b"\0\x14" + plain[18:],
        ethernet(refusal.packet(GUEST, FAR, 47, bytes(40))),
        ethernet(refusal.packet(GUEST, FAR, 132, bytes(40))),
        ethernet(refusal.packet(GUEST, FAR, 17, bytes(4))),
    ):
        assert bench.send(frame) == [], frame.hex()
    assert bench.answers == []
    assert bench.gate.dropped == 18


def test_a_header_that_belongs_to_the_next_frame_is_not_read() -> None:
    bench = Bench()
    bench.send(tcp())
    short = ethernet(refusal.packet(GUEST, FAR, 6, b"")) + b""
    assert bench.send(short, tcp()) == [tcp()]


def test_an_urgent_mark_is_taken_off() -> None:
    bench = Bench()
    bench.send(tcp())
    marked = tcp(flags=refusal.ACK | refusal.URG, payload=b"abcd", urgent=0xFFFF)
    (passed,) = bench.send(marked)
    assert passed == tcp(flags=refusal.ACK, payload=b"abcd")
    assert sums_are_right(passed)


def test_a_frame_longer_than_any_packet_is_dropped_and_the_next_one_passes() -> None:
    bench = Bench()
    long = tcp(payload=b"") + bytes(MAX_FRAME - 54)
    assert len(long) == MAX_FRAME
    assert bench.send(long, long[: MAX_ADMITTED + 1], tcp()) == [tcp()]
    assert bench.send(long[:MAX_ADMITTED]) == [long[:MAX_ADMITTED]]
    assert bench.gate.dropped == 2


def test_a_length_no_frame_has_ends_it() -> None:
    bench = Bench()
    with pytest.raises(FrameError):
        bench.stream((MAX_FRAME + 1).to_bytes(4, "big") + bytes(100))
    with pytest.raises(FrameError):
        bench.stream(b"\xff\xff\xff\xff")


def test_datagrams_of_strangers_do_not_enter() -> None:
    bench = Bench()

    def enters(frame: bytes) -> bool:
        return bench.gate.may_enter(bytearray(b"...." + frame), 4)

    assert enters(udp(GUEST, 50000, source=FAR))
    assert enters(tcp(GUEST))
    assert enters(ethernet(bytes(28), 0x0806))
    assert not enters(udp(GUEST, 50000, source=NEAR))
    assert not enters(udp(GUEST, 50000, source=ROUTER))
    assert not enters(udp(GUEST, 50000, source=bytes([9, 9, 9, 2])))


def test_refusals_are_remembered_within_bounds() -> None:
    bench = Bench()
    for port in range(1, 500):
        bench.send(tcp(NEAR, port))
    assert len(bench.gate.refusals) == REMEMBERED
    bench.send(tcp(NEAR, 499))
    assert list(bench.gate.refusals.values())[-1] == ("a private network", 2)


def reference(frame: bytes, policy: Policy) -> bool:
    """What passes, said again without any care for speed."""
    if len(frame) >= 42 and frame[12:14] == b"\x08\x06":
        return True
    if len(frame) < 34 or frame[12:14] != b"\x08\0" or frame[14] != 0x45:
        return False
    total = int.from_bytes(frame[16:18], "big")
    if total < 20 or total + 14 > len(frame) or int.from_bytes(frame[20:22], "big") & 0xBFFF:
        return False
    protocol, body = frame[23], frame[34 : 14 + total]
    least = {1: 8, 6: 20, 17: 8}.get(protocol)
    if least is None or len(body) < least:
        return False
    port = 0 if protocol == 1 else int.from_bytes(body[2:4], "big")
    opens = protocol != 6 or body[13] & 0x12 == 2
    return policy.judge(frame[30:34], protocol, port, opens=opens).allowed


@pytest.mark.parametrize("seed", range(20))
def test_mutated_frames_pass_exactly_as_the_rules_say(seed: int) -> None:
    """A fuzz run against a second telling of the rules; streams cut anywhere."""
    random_ = random.Random(seed)
    terms = {"allow": (parse_rule("192.168.1.7:443"),), "host_ports": frozenset({5432})}
    bench = Bench(random_.choice([Mode.OPEN, Mode.OPEN, Mode.OFFLINE]), **terms)
    twin = Bench(bench.policy.terms.mode, **terms).policy
    twin.set_own([IPv4Network("9.9.9.2/32")])
    seeds = [
        tcp(), tcp(NEAR, 443), tcp(ROUTER, 5432), tcp(flags=16, payload=b"z" * 200), udp(),
        udp(bytes([10, 0, 2, 3])), udp(NEAR, 443), ethernet(bytes(28), 0x0806),
        ethernet(refusal.packet(GUEST, FAR, 1, b"\x08\0" + bytes(30))),
        ethernet(bytes([0x60]) + bytes(60), 0x86DD),
    ]  # fmt: skip
    stream, expected = bytearray(), []
    for _ in range(1500):
        frame = bytearray(random_.choice(seeds))
        for _ in range(random_.choice([0, 0, 1, 1, 2, 5])):
            # Mostly in the headers, where it matters.
            place = random_.randrange(min(len(frame), random_.choice([24, 50, 1000])))
            frame[place] = random_.choice([0, 1, 2, 0x45, 0xFF, random_.randrange(256)])
        if random_.random() < 0.1:
            del frame[random_.randrange(len(frame) + 1) :]
        stream += len(frame).to_bytes(4, "big") + frame
        if reference(bytes(frame), twin):
            expected.append(bytes(frame))
    rest = b""
    position = 0
    while position < len(stream):
        size = random_.choice([1, 40, 60, 500, 5000])
        rest += bytes(stream[position : position + size])
        position += size
        rest = rest[bench.stream(rest) :]
    assert not rest
    # The urgent mark may have been taken off on the way.
    assert [one[:46] for one in bench.delivered] == [one[:46] for one in expected]
    assert not any(one[23] == 6 and one[12:14] == b"\x08\0" and one[47] & 32
                   for one in bench.delivered)  # fmt: skip
    for answer in bench.answers:
        assert len(answer) <= 14 + 20 + 36


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_refused_or_ends_it(seed: int) -> None:
    random_ = random.Random(seed)
    bench = Bench()
    for _ in range(300):
        try:
            bench.stream(random_.randbytes(random_.randrange(2000)))
        except FrameError:
            continue
    assert bench.delivered == []
