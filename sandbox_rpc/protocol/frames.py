"""LSP's base protocol: JSON behind a `Content-Length` header. Pure; others do the reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_HEADER = 4 << 10
MAX_BODY = 32 << 20


class FrameError(Exception):
    """The peer does not speak the base protocol; nothing after this can be trusted."""


def encode(message: dict[str, Any]) -> bytes:
    """One message as it goes over the wire."""
    # ASCII, since a path that is not UTF-8 survives as escaped surrogates only.
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


class Decoder:
    """Turns bytes, however they are cut, into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes.

        Raises:
            FrameError: a header without a usable length, or a body above 32 MiB.
        """
        self._buffer += data
        while True:
            if self._length is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._buffer) > MAX_HEADER:
                        raise FrameError("no end of header")
                    return
                self._length = _content_length(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            if len(self._buffer) < self._length:
                return
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._length = None
            yield body


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            if not value.strip().isdigit():
                break
            length = int(value)
            if length > MAX_BODY:
                raise FrameError(f"a message of {length} bytes, {MAX_BODY} is the limit")
            return length
    raise FrameError(f"no usable Content-Length in {header[:80]!r}")
