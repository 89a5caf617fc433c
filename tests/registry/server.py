"""Debian's docker-registry on loopback, and a server for its tokens."""

from __future__ import annotations

import base64
import datetime
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

USER, PASSWORD = "alice", "wonder land"
SERVICE, ISSUER = "registry.test", "issuer.test"


class Registry:
    """One docker-registry process with storage of its own."""

    def __init__(self, folder: Path, auth: dict[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": "127.0.0.1:0"},
        }
        if auth:
            config["auth"] = auth
        # JSON is YAML.
        (folder / "config.yml").write_text(json.dumps(config))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(folder / "config.yml")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.port = self._wait()

    def _wait(self) -> int:
        for _ in range(600):
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", self._log.read_text()):
                return int(found[1])
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def basic(folder: Path) -> dict[str, Any]:
    """The registry's configuration for names and passwords."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    return {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}


class Tokens:
    """Gives tokens as public registries do: anyone may pull `public/...`, alice all."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._der = certificate.public_bytes(serialization.Encoding.DER)
        (folder / "root.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.asked: list[tuple[str, str, str]] = []
        """Method, query or form, Authorization of each request."""
        self.refresh_token = "a-refresh-token"
        handler = _handler(self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"
        self.configuration = {
            "token": {
                "realm": self.realm, "service": SERVICE, "issuer": ISSUER,
                "rootcertbundle": str(folder / "root.crt"),
            }
        }  # fmt: skip

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, scope: str, user: str) -> str:
        """A token for what this user may do of what was asked for."""
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        granted = set(actions.split(",")) if user else {"pull"} & set(actions.split(","))
        if not user and not name.startswith("public/"):
            granted = set()
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "x5c": [base64.b64encode(self._der).decode()]}
        access = [{"type": kind, "name": name, "actions": sorted(granted)}] if granted else []
        body = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 60, "nbf": now - 10,
            "iat": now, "jti": str(time.monotonic_ns()), "access": access,
        }  # fmt: skip
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _handler(tokens: Tokens) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, asked: str) -> None:
            login = self.headers.get("Authorization", "")
            tokens.asked.append((self.command, asked, login))
            fields = {key: values[0] for key, values in parse_qs(asked).items()}
            user = ""
            if login:
                expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if login != f"Basic {expected}":
                    return self._say(401, {"errors": []})
                user = USER
            if fields.get("refresh_token") == tokens.refresh_token:
                user = USER
            return self._say(200, {"token": tokens.token(fields["scope"], user)})

        def _say(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


Made = Callable[..., Registry]
