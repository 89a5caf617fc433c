"""What a provider of SSH windows does, over the real OpenSSH client; the resolver asks it.

It looks for the editor's server in the guest where open-remote-ssh has it, starts it there by one
ssh and reaches it by a second one, `ssh -N -L`. It never brings a server along: `missing` counts
how often one would have had to be downloaded.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.vm.host import Host, wait_for

RESOLVER = Path(__file__).parent / "resolver"
LISTENING = re.compile(rb"Extension host agent listening on (\d+)")
START_LIMIT_S = 240
KINDS = {".json": "application/json", ".js": "text/javascript"}


@frozen
class Reached:
    """A server in a guest."""

    port: int
    """On this host."""
    token: str


@define
class Provider:
    """The helper, with its ssh processes."""

    host: Host
    config: Path
    """The user's SSH configuration."""
    folder: str
    """The editor's folder in the guest's home."""
    commit: str
    missing: int = 0
    children: list[subprocess.Popen[bytes]] = field(factory=list)
    reached: dict[str, Reached] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock)
    _server: Any = None

    def start(self) -> None:
        """Listen."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Of the helper."""
        return int(self._server.server_address[1])

    def drop(self) -> None:
        """End all connections into guests."""
        for child in self.children:
            child.kill()
            child.wait()
        self.children.clear()
        self.reached.clear()

    def close(self) -> None:
        """End it."""
        self.drop()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request of the browser's."""
        url = urllib.parse.urlsplit(request.path)
        status, kind, body = 404, "text/plain", b""
        if url.path == "/resolve":
            name = host_of(urllib.parse.parse_qs(url.query)["host"][0])
            kind = "application/json"
            try:
                with self._lock:
                    found = self.reached.get(name) or self.connect(name)
                self.reached[name] = found
                value: dict[str, Any] = {
                    "host": "127.0.0.1", "port": found.port, "token": found.token
                }  # fmt: skip
                status = 200
            except Exception as error:
                status, value = 502, {"error": str(error)}
            body = json.dumps(value).encode()
        elif url.path.startswith("/ext/"):
            file = RESOLVER / Path(url.path).name
            if file.is_file():
                status, kind = 200, KINDS[file.suffix]
                text = file.read_text().replace("HELPER", f"http://127.0.0.1:{self.port}")
                body = text.encode()
        try:
            request.send_response(status)
            request.send_header("Access-Control-Allow-Origin", "*")
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # the window was closed meanwhile

    def connect(self, name: str) -> Reached:
        """Start the server in the guest and open the way to it."""
        token = secrets.token_hex(16)
        place = f"{self.folder}/bin/{self.commit}"
        script = (
            f"cd {place} 2>/dev/null || {{ echo no server; exit 3; }};"
            " exec ./node out/server-main.js"
            f" --host 127.0.0.1 --port 0 --connection-token {token} --telemetry-level off"
            f" --accept-server-license-terms --server-data-dir ~/{self.folder}"
        )
        server = self._ssh("-tt", name, script, stdout=subprocess.PIPE)
        said = b""
        timer = threading.Timer(START_LIMIT_S, server.kill)
        timer.start()
        try:
            assert server.stdout is not None
            while not (found := LISTENING.search(said)):
                chunk = server.stdout.read1(4096)  # type: ignore[attr-defined]
                if not chunk:
                    if b"no server" in said:
                        self.missing += 1
                    raise RuntimeError(f"the server in {name} did not start: {said!r}")
                said += chunk
        finally:
            timer.cancel()
        threading.Thread(target=_drain, args=[server], daemon=True).start()
        local = _free_port()
        forward = f"127.0.0.1:{local}:127.0.0.1:{int(found[1])}"
        self._ssh("-N", "-o", "ExitOnForwardFailure=yes", "-L", forward, name)
        wait_for(lambda: _listens(local), "the way into the guest", seconds=60)
        return Reached(local, token)

    def _ssh(self, *words: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        child = self.host.popen(
            ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", *words], stdout=stdout,
            stdin=subprocess.PIPE,
        )  # fmt: skip
        self.children.append(child)
        return child


def host_of(text: str) -> str:
    """The host of an authority, where it is wrapped in JSON in hexadecimal."""
    try:
        return str(json.loads(bytes.fromhex(text))["hostName"])
    except ValueError:
        return text


def _drain(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    while child.stdout.read(65536):
        pass


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
