"""The ClientHello, also of the real OpenSSL, in pieces of any size."""

from __future__ import annotations

import itertools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_rpc.network.proxy.hello import MAX_BYTES, Hello, HelloReader, NotTls


def vector(data: bytes, width: int) -> bytes:
    """Data with its length in front."""
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, content: bytes) -> bytes:
    """One extension."""
    return kind.to_bytes(2, "big") + vector(content, 2)


def server_name(*names: bytes) -> bytes:
    """The extension that names hosts."""
    return extension(0, vector(b"".join(b"\0" + vector(name, 2) for name in names), 2))


def message(*extensions: bytes) -> bytes:
    """A ClientHello message."""
    body = b"\3\3" + bytes(32) + vector(bytes(32), 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1)
    return b"\1" + vector(body + vector(b"".join(extensions), 2), 3)


def records(data: bytes, cuts: list[int]) -> bytes:
    """A message in records, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    return b"".join(b"\x16\3\1" + vector(piece, 2) for piece in pieces)


def read(stream: bytes, sizes: list[int]) -> Hello | None:
    """What a reader makes of a stream that comes in pieces."""
    reader, at = HelloReader(), 0
    for size in [*sizes, len(stream)]:
        piece = stream[at : at + size]
        at += size
        if piece and (found := reader.feed(piece)) is not None:
            return found
    return None


def openssl_hello(name: str | None) -> bytes:
    """What a real client sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@given(
    st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True),
    st.lists(st.integers(0, 2000), max_size=12),
    st.lists(st.integers(1, 50), max_size=40),
)
def test_the_name_is_found_however_it_is_cut(name: str, cuts: list[int], sizes: list[int]) -> None:
    hello = message(extension(43, b"\2\3\4"), server_name(name.encode()), extension(21, bytes(700)))
    assert read(records(hello, cuts), sizes) == Hello(name, False)


@given(st.binary(max_size=400), st.lists(st.integers(1, 9), max_size=20))
def test_bytes_of_any_kind_are_a_hello_or_none(data: bytes, sizes: list[int]) -> None:
    for stream in (data, b"\x16\3\1" + vector(data, 2), records(b"\1" + vector(data, 3), [])):
        try:
            found = read(stream, sizes)
        except NotTls:
            continue
        assert found is None or isinstance(found, Hello)


@given(st.integers(0, 600), st.binary(min_size=1, max_size=3))
def test_a_damaged_hello_names_nobody_else(at: int, damage: bytes) -> None:
    good = bytearray(records(message(server_name(b"allowed.example")), [40]))
    place = at % len(good)
    good[place : place + len(damage)] = damage
    try:
        found = read(bytes(good), [])
    except NotTls:
        return
    # Whatever a server would read there, it is what we have read.
    assert found is None or found.name is None or found.name.encode() in bytes(good)


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_openssl(size: int) -> None:
    hello = openssl_hello("Allowed.example")
    assert read(hello, [size] * len(hello)) == Hello("Allowed.example", False)
    assert read(openssl_hello(None), [size] * 5000) == Hello(None, False)


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH\r\n", b"GET / HTTP/1.1\r\n", b"\x16\x02", b"\x80\x2e\x01\x03\x01",
        b"\x16\3\1\0\0", b"\x16\3\1\xff\xff", b"\x17\3\3\0\5hello",
        records(b"\2" + vector(bytes(40), 3), []),
        records(b"\1\xff\xff\xff", []),
        records(message(server_name(b"a.example", b"b.example")), []),
        records(message(server_name(b"a.example"), server_name(b"b.example")), []),
        records(message(server_name(b"\xff.example")), []),
        records(message(extension(0, b"\0\2\1\0")), []),
        records(message(b"\0\0\0\x40\0"), []),
    ],
)  # fmt: skip
def test_what_is_no_hello_is_told(stream: bytes) -> None:
    with pytest.raises(NotTls):
        read(stream, [])
    with pytest.raises(NotTls):
        read(stream, [1] * len(stream))


def test_what_follows_a_hello_is_no_part_of_it() -> None:
    """A client may send early data at once, and all of it may come in one piece."""
    stream = records(message(server_name(b"a.example")), [])
    found = HelloReader().feed(stream + bytes(2 * MAX_BYTES))
    assert found is not None
    assert found.name == "a.example"


def test_a_hello_without_end_is_not_kept() -> None:
    reader = HelloReader()
    # A hello in records of one byte: its own length says 24 KiB, the heads make it six times that.
    piece = records(b"\1\0\x60\0" + bytes(MAX_BYTES // 6), list(range(MAX_BYTES)))
    assert len(piece) > MAX_BYTES
    assert reader.feed(piece[: MAX_BYTES // 2]) is None
    with pytest.raises(NotTls, match="too long"):
        reader.feed(piece[MAX_BYTES // 2 :])


def test_a_hidden_hello_is_noticed() -> None:
    found = read(records(message(server_name(b"front.example"), extension(0xFE0D, b"x")), []), [])
    assert found == Hello("front.example", True)
