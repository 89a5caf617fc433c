"""Noise through the whole process: stream, gate, libslirp, outlet, and its control socket.

The process is real, in its box, in the host's namespace of the lab; QEMU's part is played here.
What is sent are frames of all kinds it knows, broken in their headers, with right checksums more
often than not, so that they reach libslirp's inside; connections are opened and then go wrong.
By hand:

    SANDBOX_FUZZ=3000000 .venv/bin/python -m pytest tests/unit/network/test_fuzz.py -s
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_rpc.network import control, refusal
from sandbox_rpc.network.gate import MAX_FRAME
from sandbox_rpc.network.launch import Running, Wish
from sandbox_rpc.network.lockdown import MAX_DESCRIPTORS
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.network.settings import Route
from tests.unit.network.lab import (
    INTERNET,
    NEIGHBOUR,
    OWN_LAN,
    RESOLVER,
    World,
    alive,
    descriptors,
    launch_inside,
    wait_for,
)

FRAMES = int(os.environ.get("SANDBOX_FUZZ", "12000"))
BATCH = 40
MTU = 1500
ROUTER_MAC, GUEST_MAC = bytes.fromhex("525500000202"), bytes.fromhex("525400123456")
PLACES = tuple(
    map(socket.inet_aton, (INTERNET, INTERNET, "10.0.2.2", "10.0.2.3", "10.0.2.100", "10.0.2.15",
                           NEIGHBOUR, OWN_LAN, "127.0.0.1", "255.255.255.255", "224.0.0.1"))
)  # fmt: skip
GUEST = socket.inet_aton("10.0.2.15")


def ethernet(body: bytes, kind: int = 0x0800) -> bytes:
    return ROUTER_MAC + GUEST_MAC + kind.to_bytes(2, "big") + body


def tcp(
    to: bytes, port: int, flags: int, source: int, sequence: int = 7, acknowledged: int = 0,
    payload: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">HHIIBBHHH", source, port, sequence, acknowledged, 0x50, flags, 8000, 0, 0)
    return ethernet(refusal.packet(GUEST, to, 6, head + payload))


def udp(to: bytes, port: int, payload: bytes, source: int) -> bytes:
    head = struct.pack(">HHHH", source, port, 8 + len(payload), 0)
    return ethernet(refusal.packet(GUEST, to, 17, head + payload))


def mended(frame: bytes) -> bytes:
    """The frame with right checksums, as far as it has any."""
    if len(frame) < 34 or frame[12:14] != b"\x08\0":
        return frame
    packet = bytearray(frame[14:])
    size = (packet[0] & 15) * 4
    if not 20 <= size <= len(packet):
        return frame
    packet[10:12] = b"\0\0"
    packet[10:12] = refusal.checksum(bytes(packet[:size])).to_bytes(2, "big")
    end = min(len(packet), max(size, int.from_bytes(packet[2:4], "big")))
    body = packet[size:end]
    place = {1: 2, 6: 16, 17: 6}.get(packet[9])
    if place is not None and len(body) >= place + 2:
        body[place : place + 2] = b"\0\0"
        pseudo = bytes(packet[12:20]) + struct.pack(">BBH", 0, packet[9], len(body))
        found = refusal.checksum((b"" if packet[9] == 1 else pseudo) + bytes(body))
        body[place : place + 2] = found.to_bytes(2, "big")
        packet[size:end] = body
    return frame[:14] + bytes(packet)


class Source:
    """Frames as a mad guest sends them; it listens to the answers to get further in."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.connections: list[tuple[bytes, int, int, int, int]] = []

    def hear(self, frame: bytes) -> None:
        """Learn of a connection that was answered."""
        if len(frame) < 54 or frame[12:14] != b"\x08\0" or frame[23] != 6:
            return
        port, mine, sequence, acknowledged, _, flags = struct.unpack_from(">HHIIBB", frame, 34)
        if flags & (refusal.SYN | refusal.ACK) == refusal.SYN | refusal.ACK:
            found = (frame[26:30], port, mine, acknowledged, (sequence + 1) & 0xFFFFFFFF)
            self.connections = [*self.connections[-200:], found]

    def frame(self) -> bytes:
        """One frame, broken more often than not."""
        dice = self.random
        frame = bytearray(dice.choice(KINDS)(self))
        for _ in range(dice.choice([0, 0, 0, 1, 1, 2, 4])):
            place = dice.randrange(min(len(frame), dice.choice([24, 56, 2000])))
            frame[place] = dice.choice([0, 1, 0x45, 0x7F, 0xFF, dice.randrange(256)])
        if dice.random() < 0.05:
            del frame[dice.randrange(len(frame)) :]
        if dice.random() < 0.02:
            frame += bytes(dice.choice([1, 1500, 9000, MAX_FRAME - len(frame)]))
        return mended(bytes(frame)) if dice.random() < 0.8 else bytes(frame)

    def place(self) -> bytes:
        return self.random.choice(PLACES)

    def port(self) -> int:
        return self.random.choice([80, 80, 80, 22, 53, 67, 69, 7002, 8888, 0, 65535])

    def own_port(self) -> int:
        return 20000 + self.random.randrange(300)

    def opening(self) -> bytes:
        return tcp(self.place(), self.port(), 2, self.own_port(), self.random.randrange(1 << 32))

    def going_on(self) -> bytes:
        if not self.connections:
            return self.opening()
        dice = self.random
        to, port, mine, sequence, acknowledged = dice.choice(self.connections)
        payload = dice.randbytes(dice.choice([0, 0, 1, 100, 1400]))
        flags = 16 | dice.choice([0, 0, 0, 1, 4, 8, 32, 255])
        sequence = (sequence + dice.choice([0, 0, 0, 1, -1, 1 << 20])) & 0xFFFFFFFF
        frame = bytearray(tcp(to, port, flags, mine, sequence, acknowledged, payload))
        frame[48:50] = dice.choice([b"\0\0", b"\x20\0", b"\xff\xff"])
        return bytes(frame)

    def datagram(self) -> bytes:
        dice = self.random
        return udp(self.place(), self.port(), dice.randbytes(dice.choice([0, 20, 1400])),
                   self.own_port())  # fmt: skip

    def question(self) -> bytes:
        text = struct.pack(">6H", 1, 256, 1, 0, 0, 0) + b"\7example\0\0\1\0\1"
        return udp(PLACES[3], 53, text, self.own_port())

    def dhcp(self) -> bytes:
        dice = self.random
        options = dice.randbytes(dice.randrange(60))
        text = b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63" + b"\x35\1\1" + options + b"\xff"
        return udp(dice.choice([b"\xff" * 4, PLACES[2]]), 67, text, 68)

    def tftp(self) -> bytes:
        return udp(PLACES[2], 69, b"\0\1/etc/passwd\0octet\0", self.own_port())

    def arp(self) -> bytes:
        dice = self.random
        head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, dice.choice([1, 2, 3]))
        return ethernet(
            head + GUEST_MAC + dice.choice([GUEST, bytes(4), self.place()]) + ROUTER_MAC
            + self.place(), 0x0806,
        )  # fmt: skip

    def icmp(self) -> bytes:
        dice = self.random
        body = bytes([dice.choice([8, 8, 0, 3, 5, 11, 13]), 0]) + bytes(6)
        return ethernet(
            refusal.packet(GUEST, self.place(), 1, body + dice.randbytes(dice.choice([0, 28, 500])))
        )

    def fragment(self) -> bytes:
        frame = bytearray(self.datagram())
        frame[20:22] = self.random.choice([b"\x20\0", b"\x20\1", b"\0\x10", b"\x1f\xff"])
        return bytes(frame)

    def six(self) -> bytes:
        body = b"\x60" + bytes(3) + b"\0\x20\x3a\xff" + bytes(32) + b"\x87" + bytes(31)
        return ethernet(body, 0x86DD)

    def ncsi(self) -> bytes:
        return ethernet(self.random.randbytes(60), 0x88F8)


KINDS: tuple[Callable[[Source], bytes], ...] = (
    Source.opening, Source.opening, Source.going_on, Source.going_on, Source.going_on,
    Source.datagram, Source.question, Source.dhcp, Source.tftp, Source.arp, Source.icmp,
    Source.fragment, Source.six, Source.ncsi,
)  # fmt: skip


class Wire:
    """QEMU's end of the stream, read while it writes, so that neither side waits for the other."""

    def __init__(self, one: socket.socket, source: Source) -> None:
        self._one = one
        self._source = source
        self._heard = bytearray()
        self.frames = 0

    def send(self, data: bytes) -> None:
        self._one.setblocking(False)
        view = memoryview(data)
        while view:
            ready = select.select([self._one], [self._one], [], 60)
            assert ready[0] or ready[1], "it neither reads nor writes"
            if ready[0]:
                self.read()
            if ready[1]:
                # Cut anywhere.
                size = self._source.random.choice([1, 3, 60, 4000, 1 << 20])
                view = view[self._one.send(view[:size]) :]

    def read(self) -> None:
        data = self._one.recv(1 << 20)
        assert data, "it has ended"
        self._heard += data
        position = 0
        while position + 4 <= len(self._heard):
            size = int.from_bytes(self._heard[position : position + 4], "big")
            assert 14 <= size <= MTU + 14, "what goes to the guest is frames"
            if position + 4 + size > len(self._heard):
                break
            frame = bytes(self._heard[position + 4 : position + 4 + size])
            self._source.hear(frame)
            self.frames += 1
            position += 4 + size
        del self._heard[:position]


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.PROXY])
def test_a_mad_guest(world: World, tmp_path: Path, mode: Mode) -> None:
    source = Source(int(os.environ.get("SANDBOX_FUZZ_SEED", "1")))
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(str(tmp_path / "net.sock"))
        ear.listen(1)
        # DHCP is off in the product; here it is what else a guest could try.
        wish = Wish(mode, dhcp=True, mtu=MTU, routes=(Route(str(tmp_path / "proxy.sock")),))
        running = launch_inside(
            world.host, wish, tmp_path / "net.sock", tmp_path / "netd.sock", [],
            tmp_path / "netd.log",
        )  # fmt: skip
        connection, _ = ear.accept()
    with running.control, connection:
        control.call(running.control, "resolver", text=f"nameserver {RESOLVER}\n")
        wire = Wire(connection, source)
        heard, before = world.echo.connections, len(world.echo.datagrams)
        for number in range(FRAMES // BATCH):
            frames = [source.frame() for _ in range(BATCH)]
            wire.send(b"".join(len(one).to_bytes(4, "big") + one for one in frames))
            if number % 20 == 0:
                nonsense(running, source.random)
        status = finish(running, wire, FRAMES // BATCH * BATCH)
        words = {word for word, _ in world.echo.datagrams[before:]}
        print(status["frames"], wire.frames, words, world.echo.connections - heard)
        assert alive(running.pid)
        # Whom the host has heard from is whom the rules let through.
        assert words <= ({"beyond-udp", "public-dns", "resolver"} if mode is Mode.OPEN else set())
        assert descriptors(running.pid) <= MAX_DESCRIPTORS, "a long run uses them up"
        assert wire.frames > FRAMES // 100, "it was answered all along"
        log = (tmp_path / "netd.log").read_text()
        assert "Traceback" not in log
    wait_for(lambda: not alive(running.pid), "its end")
    wait_for(lambda: world.echo.connections <= heard, "its connections' end")


def finish(running: Running, wire: Wire, sent: int) -> dict[str, dict[str, int]]:
    """The status when all that was sent has been counted: no frame is lost or seen twice."""
    status: dict[str, dict[str, int]] = {}

    def counted() -> bool:
        nonlocal status
        while select.select([wire._one], [], [], 0)[0]:
            wire.read()
        status = control.call(running.control, "status")[0]
        frames = status["frames"]
        return frames["admitted"] + frames["refused"] + frames["dropped"] == sent

    wait_for(counted, "every frame to be counted")
    return status


def nonsense(running: Running, dice: random.Random) -> None:
    """A packet of noise, or of half sense, on the control socket: always one answer."""
    text = dice.choice([b"", b"{", b'{"method": "status"}', b'{"method": "forward/add"}', b"[1]",
                        b'{"method": "forward/remove", "address": 3}', b"nul", b'"x"'])  # fmt: skip
    data = bytearray(text or dice.randbytes(dice.randrange(1, 3000)))
    if dice.random() < 0.5:
        data[dice.randrange(len(data))] = dice.randrange(256)
    running.control.send(data)
    assert running.control.recv(control.MAX_PACKET)
