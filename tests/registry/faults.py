"""A server in front of a registry that does to blobs what networks and bad servers do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import frozen

PIECE = 1 << 16


@frozen
class Asked:
    """A request as it came."""

    method: str
    path: str
    range: str
    authorization: str
    host: str


@frozen
class Answer:
    """What the registry itself would have said."""

    status: int
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Handler", Answer], None]
"""Sends something else than the answer."""


class Faulty:
    """Passes on; each blob that is fetched meets the next fault of `plan`, if there is one."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.plan: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.released = threading.Event()
        """Ends what stalls."""
        self.manifest: Fault | None = None
        """The same for manifests, every time."""
        owner = self

        class Bound(Handler):
            faulty = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def blobs(self) -> list[Asked]:
        """The requests for blobs."""
        return [one for one in self.asked if "/blobs/" in one.path and one.method == "GET"]

    def end(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    faulty: Faulty
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._pass_on()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def _pass_on(self) -> None:
        owner = self.faulty
        owner.asked.append(
            Asked(
                self.command, self.path, self.headers.get("Range", ""),
                self.headers.get("Authorization", ""), self.headers.get("Host", ""),
            )
        )  # fmt: skip
        answer = self.ask()
        blob = "/blobs/sha256:" in self.path and self.command == "GET"
        with suppress(ConnectionError):
            if blob and answer.status in (200, 206) and owner.plan:
                owner.plan.popleft()(self, answer)
            elif "/manifests/" in self.path and owner.manifest is not None:
                owner.manifest(self, answer)
            else:
                self.send(answer)

    def ask(self, **headers: str) -> Answer:
        """The registry's own answer."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        connection = http.client.HTTPConnection(self.faulty.upstream, timeout=60)
        sent = {name: value for name, value in self.headers.items() if name != "Connection"}
        connection.request(self.command, self.path, body, {**sent, **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return Answer(response.status, dict(response.getheaders()), content)

    def send(self, answer: Answer, *, length: int | None = None, body: bytes | None = None) -> None:
        """Send an answer, perhaps with another length or body than it had."""
        body = answer.body if body is None else body
        self.head(answer, len(body) if length is None else length)
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, answer: Answer, length: int) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "date", "server", "connection"):
                self.send_header(name, value)
        if self.command != "HEAD" or "Content-Length" in answer.headers:
            known = answer.headers.get("Content-Length", "0")
            self.send_header("Content-Length", known if self.command == "HEAD" else str(length))
        self.end_headers()

    def cut(self) -> None:
        """End the connection as a network does."""
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


def drop(after: int) -> Fault:
    """The connection ends in the middle."""

    def fault(handler: Handler, answer: Answer) -> None:
        handler.head(answer, len(answer.body))
        handler.wfile.write(answer.body[:after])
        handler.cut()

    return fault


def stall(after: int) -> Fault:
    """The server says nothing more and keeps the connection."""

    def fault(handler: Handler, answer: Answer) -> None:
        handler.head(answer, len(answer.body))
        handler.wfile.write(answer.body[:after])
        handler.wfile.flush()
        handler.faulty.released.wait(60)
        handler.cut()

    return fault


def trickle(pause_s: float, piece: int = 200) -> Fault:
    """A few bytes now and then."""

    def fault(handler: Handler, answer: Answer) -> None:
        handler.head(answer, len(answer.body))
        for begin in range(0, len(answer.body), piece):
            handler.wfile.write(answer.body[begin : begin + piece])
            handler.wfile.flush()
            if handler.faulty.released.wait(pause_s):
                break
        handler.cut()

    return fault


def slow(pause_s: float, piece: int = PIECE) -> Fault:
    """All of it, not fast: long enough for a test to do something meanwhile."""
    return trickle(pause_s, piece)


def tamper(at: int) -> Fault:
    """One bit is another one."""

    def fault(handler: Handler, answer: Answer) -> None:
        body = bytearray(answer.body)
        body[at % len(body)] ^= 1
        handler.send(answer, body=bytes(body))

    return fault


def longer(handler: Handler, answer: Answer) -> None:
    """More than there should be, and the length says so."""
    handler.send(answer, body=answer.body + b"more")


def longer_in_chunks(handler: Handler, answer: Answer) -> None:
    """More than there should be, and no length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in (answer.body, b"more" * 100, b""):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def shorter(handler: Handler, answer: Answer) -> None:
    """The server has only a part, and thinks it is all."""
    handler.send(answer, body=answer.body[:-1000])


def whole(handler: Handler, answer: Answer) -> None:
    """A server that knows no ranges."""
    del handler.headers["Range"]
    handler.send(handler.ask())


def other_range(handler: Handler, answer: Answer) -> None:
    """Another part than the one that was asked for."""
    total = answer.headers["Content-Range"].rpartition("/")[2]
    headers = {
        **answer.headers,
        "Content-Range": f"bytes {int(total) - 10}-{int(total) - 1}/{total}",
    }
    handler.send(Answer(206, headers, answer.body[-10:]))


def no_range(handler: Handler, answer: Answer) -> None:
    """206 without saying which part."""
    headers = {name: v for name, v in answer.headers.items() if name != "Content-Range"}
    handler.send(Answer(206, headers, answer.body))


def status(code: int, **headers: str) -> Fault:
    """An error."""

    def fault(handler: Handler, answer: Answer) -> None:
        handler.send(Answer(code, headers, b"no"))

    return fault


def redirect(target: str) -> Fault:
    """Look elsewhere: `target` is a URL, with {path} for the path."""

    def fault(handler: Handler, answer: Answer) -> None:
        location = target.replace("{path}", handler.path)
        handler.send(Answer(307, {"Location": location}, b""))

    return fault
