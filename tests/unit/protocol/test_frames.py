"""Content-Length frames, cut anywhere."""

from __future__ import annotations

import json

import pytest

from sandbox_rpc.protocol.frames import MAX_BODY, MAX_HEADER, Decoder, FrameError, encode


def test_single_bytes() -> None:
    """Two messages, one byte at a time."""
    data = encode({"a": "é\udcff"}) + encode({"b": 2})
    decoder = Decoder()
    bodies = [json.loads(body) for byte in data for body in decoder.feed(bytes([byte]))]
    assert bodies == [{"a": "é\udcff"}, {"b": 2}]


def test_header_names_have_no_case() -> None:
    """And other headers are allowed."""
    data = b"content-type: x\r\ncontent-LENGTH:  2\r\n\r\n{}"
    assert list(Decoder().feed(data)) == [b"{}"]


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: abc\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Nothing: 1\r\n\r\n",
        b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"x" * (MAX_HEADER + 1),
    ],
)
def test_what_cannot_be_trusted(data: bytes) -> None:
    """A header without a usable length ends the conversation."""
    with pytest.raises(FrameError):
        list(Decoder().feed(data))
