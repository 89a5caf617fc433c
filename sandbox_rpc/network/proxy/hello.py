"""The first thing a TLS client says: whom it wants to talk to. Pure, without a copy of OpenSSL.

A hello may come split into any number of records, and these in any number of pieces (RFC 8446, §4
and §5.1); the server puts it together, so we do before we look.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_BYTES = 32 << 10
"""Of a hello with its records' heads: those with keys of post-quantum algorithms take 2 KiB."""
MAX_RECORD = 1 << 14
HANDSHAKE, CLIENT_HELLO = 22, 1
SERVER_NAME, ENCRYPTED_HELLO = 0, 0xFE0D
HOST_NAME = 0


class NotTls(ValueError):
    """It is no ClientHello; says why, as the rest of a sentence."""


class Hello(NamedTuple):
    """What matters of it."""

    name: str | None
    """As the client writes it; None where it names nobody."""
    encrypted: bool
    """Whether it carries another hello that only the server can read, or pretends to."""


class HelloReader:
    """Takes pieces until there is a hello."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._message = bytearray()
        self._taken = 0

    def feed(self, data: bytes) -> Hello | None:
        """Take a piece; the hello, once it is whole.

        Raises:
            NotTls: it will never be one.
        """
        self._taken += len(data)
        self._input += data
        while self._next_record():
            message = self._message
            if len(message) < 4:
                continue
            size = int.from_bytes(message[1:4], "big")
            if message[0] != CLIENT_HELLO:
                raise NotTls("the first message is no ClientHello")
            if size > MAX_BYTES:
                raise NotTls("the hello is too long")
            if len(message) >= 4 + size:
                return parse(bytes(message[4 : 4 + size]))
        # Only now: a client may send much behind a whole hello without waiting for anybody.
        if self._taken > MAX_BYTES:
            raise NotTls("the hello is too long")
        return None

    def _next_record(self) -> bool:
        data = self._input
        # Told as early as it can be known: a client of another protocol waits for us to speak.
        if data[:1] and data[0] != HANDSHAKE:
            raise NotTls("it is no TLS")
        if len(data) > 1 and data[1] != 3:
            raise NotTls("it is no TLS")
        if len(data) < 5:
            return False
        size = int.from_bytes(data[3:5], "big")
        if not 0 < size <= MAX_RECORD:
            raise NotTls("a record has a size that none has")
        if len(data) < 5 + size:
            return False
        self._message += data[5 : 5 + size]
        del data[: 5 + size]
        return True


def parse(body: bytes) -> Hello:
    """The hello in a ClientHello message, without its head.

    Raises:
        NotTls: it is malformed.
    """
    reader = _Reader(body)
    reader.take(2 + 32)
    reader.vector(1)
    reader.vector(2)
    reader.vector(1)
    if reader.at_end:
        return Hello(None, False)  # extensions are younger than the rest
    extensions = _Reader(reader.vector(2))
    if not reader.at_end:
        raise NotTls("the hello goes on after its end")
    name: str | None = None
    seen: set[int] = set()
    while not extensions.at_end:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind in seen:
            raise NotTls("an extension comes twice")
        seen.add(kind)
        if kind == SERVER_NAME:
            name = _server_name(content)
    return Hello(name, ENCRYPTED_HELLO in seen)


def _server_name(content: bytes) -> str:
    reader = _Reader(content)
    names = _Reader(reader.vector(2))
    kind = names.take(1)[0]
    name = names.vector(2)
    # RFC 6066: one name of each kind, and there is but one kind.
    if kind != HOST_NAME or not names.at_end or not reader.at_end:
        raise NotTls("it names more than one host")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise NotTls("the name is not ASCII") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise NotTls("the hello is cut short")
        found = self._data[self._at : end]
        self._at = end
        return found

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))
