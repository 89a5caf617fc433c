"""A proxy in its real process and box, with servers on loopback that stand for the internet.

Names of servers are pinned to loopback, as a registry's name is; what is not pinned is refused as
it is for a guest. Tables with real public addresses are in test_reach.py, in namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandbox_rpc.host import files
from sandbox_rpc.network import control
from sandbox_rpc.network.launch import Running
from sandbox_rpc.network.proxy import launch
from sandbox_rpc.network.proxy.settings import Pin, Upstream, Wish
from tests.unit.network.lab import alive, wait_for

LIMIT_S = 30
Handler = Callable[[socket.socket], None]


class Server:
    """A listening socket, each of whose clients is handled in a thread of its own."""

    def __init__(self, handle: Handler, listener: socket.socket | None = None) -> None:
        self._handle = handle
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(None)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more clients."""
        # Closed alone, it would live on in the thread that waits for the next one.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            client.settimeout(LIMIT_S)
            threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError, EOFError):
            self._handle(client)


class Stand:
    """One proxy, its folders, its allowlist, its servers."""

    def __init__(self, folder: Path, *, upstream: Upstream | None = None) -> None:
        self.folder = folder
        self.rules = folder / "rules"
        self.journal = folder / "journal"
        for one in (self.rules, self.journal):
            one.mkdir()
        self.listener = launch.listen(folder / "proxy.sock")
        self.control_socket = folder / "control.sock"
        self.log = folder / "proxy.log"
        self._upstream = upstream
        self._pins: list[Pin] = []
        self._servers: list[Server] = []
        self.running: Running | None = None

    def serve(self, host: str, handle: Handler) -> int:
        """A server that `host` leads to, at the port that is returned; before `start`."""
        server = Server(handle)
        self._servers.append(server)
        self._pins.append(Pin(host, server.port, ("127.0.0.1",)))
        return server.port

    def start(self, *rules: str, machine: int = -1, namespace: str = "auto") -> None:
        """Start the process."""
        if rules:
            self.allow(*rules)
        wish = Wish(
            str(self.rules), str(self.journal), tuple(self._pins), upstream=self._upstream,
            namespace=namespace,
        )  # fmt: skip
        self.running = launch.launch(
            wish, listener=self.listener, machine=machine, control_socket=self.control_socket,
            log=self.log,
        )  # fmt: skip

    def allow(self, *rules: str) -> None:
        """Replace the allowlist, as careful programs do."""
        files.replace(self.rules / "allowlist.txt", "".join(f"{rule}\n" for rule in rules))

    def ask(self, method: str, **params: object) -> Any:
        """Ask the process."""
        assert self.running is not None
        return control.call(self.running.control, method, None, **params)[0]

    def connect(self) -> socket.socket:
        """Connect as a guest does."""
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(LIMIT_S)
        one.connect(str(self.folder / "proxy.sock"))
        return one

    def talk(self, data: bytes) -> bytes:
        """Send, say that this was all, and read to the end."""
        with self.connect() as one:
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            return read_all(one)

    def get(self, url: str, *lines: str) -> bytes:
        """A request in plain HTTP, alone on its connection."""
        head = "".join(f"{line}\r\n" for line in (f"GET {url} HTTP/1.1", "Host: x", *lines))
        return self.talk(f"{head}Connection: close\r\n\r\n".encode())

    def tunnel(self, host: str, port: int) -> socket.socket:
        """A tunnel that has been granted."""
        one = self.connect()
        place = f"{host}:{port}"
        one.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        answer = read_head(one)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return one

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit, once there are as many as requests are over."""
        path = self.journal / "access.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def audited(self, count: int) -> list[dict[str, Any]]:
        """The same, when there are so many."""
        wait_for(lambda: len(self.audit()) >= count, f"{count} lines of audit")
        return self.audit()

    def kill(self) -> None:
        """End the process without a word."""
        assert self.running is not None
        pid = self.running.pid
        os.kill(pid, 9)
        wait_for(lambda: not alive(pid), "its end")

    def close(self) -> None:
        """End all of it."""
        if self.running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.running.pid, 15)
            pid = self.running.pid
            wait_for(lambda: not alive(pid), "its end")
            self.running.control.close()
        self.listener.close()
        for server in self._servers:
            server.close()


@contextlib.contextmanager
def stand(folder: Path, *, upstream: Upstream | None = None) -> Iterator[Stand]:
    """A stand, cleared away afterwards; a fault that the process has logged is a failure."""
    made = Stand(folder, upstream=upstream)
    try:
        yield made
    finally:
        made.close()
    said = made.log.read_text() if made.log.exists() else ""
    assert "Traceback" not in said, said


def read_all(one: socket.socket) -> bytes:
    """Everything to the end; a reset is an end, too."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := one.recv(65536):
            found += data
    return found


def read_head(one: socket.socket) -> bytes:
    """The head of an answer, byte by byte, so that nothing behind it is taken."""
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        data = one.recv(1)
        if not data:
            return found
        found += data
    return found


def exactly(one: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer at the end."""
    found = b""
    while len(found) < count and (data := one.recv(count - len(found))):
        found += data
    return found


def echo(client: socket.socket) -> None:
    """Send back what comes, whatever it is."""
    while data := client.recv(65536):
        client.sendall(data)


def web(client: socket.socket) -> None:
    """HTTP that tells what was asked, and keeps its connections."""
    file = client.makefile("rb")
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                return
            head += line
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if fields.get(b"expect") == b"100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if b"content-length" in fields:
            body = file.read(int(fields[b"content-length"]))
        elif fields.get(b"transfer-encoding") == b"chunked":
            while size := int(file.readline().strip() or b"0", 16):
                body += file.read(size)
                file.readline()
            file.readline()
        answer = json.dumps({"head": head.decode("latin-1"), "body": body.decode("latin-1")})
        kind = b"HEAD" if head.startswith(b"HEAD") else b""
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nKeep-Alive: x\r\n\r\n" % len(answer)
            + (b"" if kind else answer.encode())
        )


def certificate(folder: Path, *names: str) -> Path:
    """A key and a certificate for these names, in one file."""
    path = folder / "server.pem"
    alternatives = ",".join(f"DNS:{name}" for name in names)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={alternatives}",
         "-keyout", str(folder / "key.pem"), "-out", str(path)],
        check=True, capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    path.write_text(path.read_text() + (folder / "key.pem").read_text())
    return path


def tls(pem: Path, handle: Handler) -> Handler:
    """The same over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def wrapped(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as inside:
            handle(inside)

    return wrapped


def secured(one: socket.socket, pem: Path, name: str | None) -> ssl.SSLSocket:
    """TLS from the client's side."""
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = False
    return context.wrap_socket(one, server_hostname=name)


def pause() -> None:
    """Long enough for something to happen that must not."""
    time.sleep(0.3)
