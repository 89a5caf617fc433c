"""Fuzz what the proxy reads from a guest: `python -m tests.fuzz_proxy SECONDS [SEED]`.

Good input is damaged again and again: bytes changed, cut, doubled, put in from other samples. What
must hold for each: no other error than the parsers' own, and for a request that goes on, one host,
which is the one that was judged. The tests have properties with the same aim and few examples.
"""

from __future__ import annotations

import random
import sys
import time

import h11

from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.hello import HelloReader, NotTls
from sandbox_rpc.network.proxy.request import MAX_HEAD, Refused, onward, target_of
from sandbox_rpc.network.proxy.rules import parse

REQUESTS = (
    b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n",
    b"POST http://a.example:81/ HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT http://a.example/ HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0"
    b"\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    b"GET http://[2001:db8::1]:80/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: ws"
    b"\r\n\r\n",
    b"GET http://a.example/ HTTP/1.0\r\n\r\n",
)
HELLO = bytes.fromhex(
    "16030100430100003f0303" + "00" * 32 + "000002130101000014"
    "00000010000e00000b612e6578616d706c65"
    "2e61"
)
LISTS = (
    b"github.com\n*.example.org:8443\n!^a.*\\.b$\n@git\n[::1]:443\n# x\n",
    b".a\n*\n^(a|b)+$\n",
)
SPICE = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"@",
    b"#",
    b"%00",
    b"//",
    b"\\",
    b"[",
    b"]",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: evil.example\r\n",
    b"\xff",
    b"0x7f.1",
    b"127.1",
    b"\r\n ",
    b"HTTP/1.1",
)


def damaged(chance: random.Random, samples: tuple[bytes, ...]) -> bytes:
    """One sample, changed in a few places."""
    data = bytearray(chance.choice(samples))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(SPICE)
            case 1:
                data[at : at + chance.randint(1, 8)] = b""
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 30)]
            case _:
                other = chance.choice(samples)
                data[at:at] = other[chance.randrange(len(other)) :]
    return bytes(data)


def try_request(data: bytes) -> bool:
    """Whether a request goes on; its only host must be the judged one."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        server.receive_data(data)
        request = server.next_event()
        if not isinstance(request, h11.Request):
            return False
        target = target_of(request)
        if target.is_tunnel:
            assert hostname.canonical(target.host) == target.host
            return True
        head = h11.Connection(h11.CLIENT).send(onward(request, target))
    except (h11.RemoteProtocolError, Refused):
        return False
    assert head is not None
    lines = head.split(b"\r\n")
    assert head.count(b"\n") == head.count(b"\r") == len(lines) - 1, head
    hosts = [line for line in lines if line.lower().startswith(b"host:")]
    assert len(hosts) == 1, head
    host, port = hostname.split_authority(hosts[0][6:].decode(), 80)
    assert (host, port) == (target.host, target.port), head
    return True


def try_hello(chance: random.Random, data: bytes) -> bool:
    """Whether it is a hello; in pieces or whole, it must be the same one."""
    answers = []
    for step in (len(data) or 1, chance.randint(1, 9)):
        reader, found = HelloReader(), None
        try:
            for at in range(0, len(data), step):
                found = found or reader.feed(data[at : at + step])
            answers.append(repr(found))
        except NotTls:
            answers.append("none")
        if found is not None:
            answers[-1] = repr(found)
    assert len(set(answers)) == 1, (data, answers)
    return answers[0].startswith("Hello")


def main() -> int:
    """Run; prints how much of it was still understood."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    counts = {"requests": 0, "went on": 0, "hellos": 0, "understood": 0, "lists": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(100):
            counts["requests"] += 1
            counts["went on"] += try_request(damaged(chance, REQUESTS))
            counts["hellos"] += 1
            counts["understood"] += try_hello(chance, damaged(chance, (HELLO,)))
            counts["lists"] += 1
            parse(damaged(chance, LISTS).decode("utf-8", "replace"))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
