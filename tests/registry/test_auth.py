"""Who gets in, and where a login goes: real registries with passwords and with tokens."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import auth, credentials, http, pull
from sandbox_rpc.images.http import Client
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import DownloadFailed, ImageNotFound
from tests.registry import faults
from tests.registry.conftest import Artifact, publish
from tests.registry.faults import Faulty
from tests.registry.server import PASSWORD, SERVICE, USER, Registry, Tokens, basic

pytestmark = pytest.mark.usefixtures("brisk")
LOGIN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for docker's configuration, and nothing of the tester's own."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder


def log_in(docker: Path, host: str, login: str = LOGIN) -> None:
    """What `docker login` leaves."""
    (docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))


def got(layout: Layout, ref: str) -> StoredImage:
    return anyio.run(partial(pull.pull, layout, ref, lambda _: None, chosen=True))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a password."""
    folder = tmp_path_factory.mktemp("locked")
    server = Registry(folder, basic(folder))
    yield server
    server.end()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    server = Tokens(tmp_path_factory.mktemp("tokens"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def tokened(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[Registry]:
    """A registry that wants tokens, as the public ones do."""
    server = Registry(tmp_path_factory.mktemp("tokened"), tokens.configuration)
    yield server
    server.end()


def test_a_password_from_docker_login(
    locked: Registry, docker: Path, layout: Layout, artifact: Artifact
) -> None:
    log_in(docker, locked.host)
    publish(locked.host, "a/b:1", artifact.packed)
    assert got(layout, f"{locked.host}/a/b:1").disk.read_bytes() == artifact.disk.read_bytes()


def test_without_a_login_the_error_says_how_to_log_in(locked: Registry, layout: Layout) -> None:
    with pytest.raises(DownloadFailed) as caught:
        got(layout, f"{locked.host}/a/b:1")
    assert f"docker login {locked.host}" in str(caught.value.hint)


def test_a_wrong_password_is_tried_once(locked: Registry, docker: Path, layout: Layout) -> None:
    front = Faulty(locked.host)
    try:
        log_in(docker, front.host, base64.b64encode(b"alice:wrong").decode())
        with pytest.raises(DownloadFailed) as caught:
            got(layout, f"{front.host}/a/b:1")
        assert len(front.asked) == 2
        assert "does not do" in str(caught.value.hint)
        assert "wrong" not in str(caught.value.to_wire())
    finally:
        front.end()


HELPER = """\
#!/bin/sh
read -r registry
[ "$1" = get ] || exit 3
echo "$registry" >>"$(dirname "$0")/asked"
{answer}
"""


def helper(folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper on PATH; what it was asked."""
    path = folder / "docker-credential-test"
    path.write_text(HELPER.replace("{answer}", answer))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "asked"


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_credential_helper(
    locked: Registry, docker: Path, layout: Layout, artifact: Artifact, tmp_path: Path, key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    said = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    asked = helper(tmp_path, f"echo '{said}'", monkeypatch)
    value = {locked.host: "test"} if key == "credHelpers" else "test"
    (docker / "config.json").write_text(json.dumps({key: value}))
    publish(locked.host, "helper:1", artifact.packed)
    got(layout, f"{locked.host}/helper:1")
    assert set(asked.read_text().split()) == {locked.host}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("echo no; exit 5", "status 5"),
        ("echo nonsense", "did not answer as one"),
        ("echo credentials not found; exit 1", ""),
    ],
)
def test_a_credential_helper_that_does_not_help(
    locked: Registry, docker: Path, layout: Layout, tmp_path: Path, answer: str, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    helper(tmp_path, answer, monkeypatch)
    (docker / "config.json").write_text('{"credsStore": "test"}')
    with pytest.raises(DownloadFailed) as caught:
        got(layout, f"{locked.host}/a/b:1")
    assert said in str(caught.value.hint)


@pytest.mark.parametrize("helper_name", ["nothing-like-it", "../../bin/sh", "-x; touch /tmp/x"])
def test_a_credential_helper_that_is_not_there(docker: Path, helper_name: str) -> None:
    (docker / "config.json").write_text(json.dumps({"credsStore": helper_name}))
    found = credentials.find("example.org")
    assert found.login is None
    assert found.problem


@pytest.mark.parametrize("content", ["", "[]", "{", '{"auths": 5}', '{"auths": {"example.org": 5}}',
                                     '{"auths": {"example.org": {"auth": "%%%"}}}'])  # fmt: skip
def test_a_damaged_configuration_is_no_login(docker: Path, content: str) -> None:
    (docker / "config.json").write_text(content)
    assert credentials.find("example.org").login is None


def test_where_logins_are_kept(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(docker, "https://example.org/v1/")
    found = credentials.find("example.org").login
    assert found is not None
    assert (found.user, found.password) == (USER, PASSWORD)
    assert PASSWORD not in repr(found)
    assert credentials.find("other.example.org").login is None
    podman = tmp_path / "run" / "containers"
    podman.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    entry = base64.b64encode(b"bob:x").decode()
    (podman / "auth.json").write_text(json.dumps({"auths": {"example.org": {"auth": entry}}}))
    found = credentials.find("example.org").login
    assert found is not None
    assert found.user == "bob"


def test_an_anonymous_token(
    tokened: Registry, tokens: Tokens, docker: Path, layout: Layout, artifact: Artifact
) -> None:
    log_in(docker, tokened.host)
    publish(tokened.host, "public/image:1", artifact.packed)
    (docker / "config.json").unlink()
    tokens.asked.clear()
    got(layout, f"{tokened.host}/public/image:1")
    ((method, query, login),) = tokens.asked
    assert (method, login) == ("GET", "")
    assert "scope=repository%3Apublic%2Fimage%3Apull&" in f"{query}&"
    assert f"service={SERVICE}" in query


def test_what_is_private_asks_for_a_login_and_does_not_loop(
    tokened: Registry, tokens: Tokens, docker: Path, layout: Layout, artifact: Artifact
) -> None:
    log_in(docker, tokened.host)
    publish(tokened.host, "private/image:1", artifact.packed)
    got(layout, f"{tokened.host}/private/image:1")
    assert tokens.asked[-1][2] == f"Basic {LOGIN}"
    (docker / "config.json").unlink()
    tokens.asked.clear()
    with pytest.raises(DownloadFailed, match="refuses access"):
        got(layout, f"{tokened.host}/private/image:1")
    assert len(tokens.asked) == 1


def test_an_identity_token_is_exchanged(
    tokened: Registry, tokens: Tokens, docker: Path, layout: Layout, artifact: Artifact
) -> None:
    log_in(docker, tokened.host)
    publish(tokened.host, "private/refresh:1", artifact.packed)
    entry = {"identitytoken": tokens.refresh_token}
    (docker / "config.json").write_text(json.dumps({"auths": {tokened.host: entry}}))
    tokens.asked.clear()
    got(layout, f"{tokened.host}/private/refresh:1")
    ((method, form, login),) = tokens.asked
    assert (method, login) == ("POST", "")
    assert "grant_type=refresh_token" in form


def test_401_again_and_again(registry: Registry, layout: Layout, artifact: Artifact) -> None:
    publish(registry.host, "loop:1", artifact.packed)
    front = Faulty(registry.host)
    try:
        front.manifest = faults.status(401, **{"WWW-Authenticate": 'Basic realm="x"'})
        with pytest.raises(DownloadFailed, match="refuses access"):
            got(layout, f"{front.host}/loop:1")
        front.manifest = faults.status(401)
        with pytest.raises(DownloadFailed, match="refuses access"):
            got(layout, f"{front.host}/loop:1")
        front.manifest = faults.status(401, **{"WWW-Authenticate": "Negotiate"})
        with pytest.raises(DownloadFailed, match="kind that is not known"):
            got(layout, f"{front.host}/loop:1")
        assert len(front.asked) == 3
    finally:
        front.end()


class Elsewhere:
    """Another origin, which notes what comes."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.heard.append(dict(self.headers.items()))
                body = owner.body
                begin = 0
                if wanted := self.headers.get("Range"):
                    begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if begin else 200)
                if begin:
                    rest = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                    self.send_header("Content-Range", rest)
                self.send_header("Content-Length", str(len(body) - begin))
                self.end_headers()
                self.wfile.write(body[begin:])

            def log_message(self, *_: object) -> None:
                pass

        self.body = b""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    yield server
    server.end()


def test_a_redirect_to_another_origin_goes_without_the_login(
    locked: Registry, docker: Path, layout: Layout, artifact: Artifact, elsewhere: Elsewhere
) -> None:
    front = Faulty(locked.host)
    try:
        log_in(docker, locked.host)
        publish(locked.host, "moved:1", artifact.packed)
        log_in(docker, front.host)
        elsewhere.body = artifact.packed
        front.plan.extend([faults.redirect(f"{elsewhere.url}/somewhere?signature=secret")] * 2)
        image = got(layout, f"{front.host}/moved:1")
    finally:
        front.end()
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert front.blobs[0].authorization == f"Basic {LOGIN}"
    (heard,) = elsewhere.heard
    assert "Authorization" not in heard


def test_a_relative_redirect_keeps_it(
    locked: Registry, docker: Path, layout: Layout, artifact: Artifact
) -> None:
    front = Faulty(locked.host)
    try:
        log_in(docker, locked.host)
        publish(locked.host, "relative:1", artifact.packed)
        log_in(docker, front.host)
        front.plan.append(faults.redirect("{path}?again"))
        got(layout, f"{front.host}/relative:1")
        first, second = front.blobs
        assert first.authorization == second.authorization == f"Basic {LOGIN}"
    finally:
        front.end()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://example.org/x", "only https"),
        ("ftp://127.0.0.1/x", "only https"),
        ("file:///etc/passwd", "only https"),
        ("http://user:secret@127.0.0.1:9/x", "only https"),
        ("{path}?again", "redirects"),
    ],
)
def test_redirects_that_are_not_followed(
    registry: Registry, layout: Layout, artifact: Artifact, target: str, why: str
) -> None:
    publish(registry.host, "bad:1", artifact.packed)
    front = Faulty(registry.host)
    try:
        front.plan.extend([faults.redirect(target)] * 10)
        with pytest.raises(DownloadFailed, match=why) as caught:
            got(layout, f"{front.host}/bad:1")
        assert "secret" not in str(caught.value)
    finally:
        front.end()


@pytest.mark.parametrize(
    ("registry_name", "realm", "with_login", "fine"),
    [
        ("registry.example.org", "https://registry.example.org/token", True, True),
        ("registry.example.org", "https://auth.example.org/token", True, True),
        ("registry.example.org", "https://example.org/jwt/auth", True, True),
        ("example.org", "https://auth.example.org/token", True, True),
        ("example.org:5000", "https://example.org/token", True, True),
        ("registry.example.org", "https://example.com/token", True, False),
        ("registry.example.org", "https://example.com/token", False, True),
        ("registry.example.org", "http://registry.example.org/token", False, False),
        ("registry.example.org", "http://127.0.0.1/token", False, False),
        ("registry.example.org", "https://localhost/token", False, False),
        ("registry.example.org", "https://user@registry.example.org/token", False, False),
        ("registry.example.org", "https://registry.example.org/token#x", False, False),
        ("registry.example.org", "", False, False),
        ("registry.example.org", "https://", False, False),
        ("registry.example.org", "https://evilexample.org/", True, False),
        ("example.org", "https://other.org/", True, False),
        ("example.co.uk", "https://evil.co.uk/", True, False),
        ("r.example.co.uk", "https://auth.example.co.uk/", True, True),
        ("10.0.0.1:5000", "https://1.0.0.1/", True, False),
        ("127.0.0.1:5000", "http://127.0.0.1:5001/token", True, True),
        ("localhost:5000", "http://127.0.0.1:5001/token", True, True),
        ("127.0.0.1:5000", "http://example.org/token", False, False),
        ("127.0.0.1:5000", "https://example.org/token", True, False),
    ],
)
def test_where_a_registry_may_keep_its_tokens(
    registry_name: str, realm: str, with_login: bool, fine: bool
) -> None:
    if fine:
        auth.check_realm(registry_name, realm, with_login=with_login)
        return
    with pytest.raises(DownloadFailed):
        auth.check_realm(registry_name, realm, with_login=with_login)


def test_a_challenge_as_it_is_written() -> None:
    text = 'Bearer realm="https://a.example/t",service="s",scope="repository:a/b:pull,push"'
    scheme, fields = auth.parse_challenge(text)
    assert scheme == "bearer"
    assert fields == {
        "realm": "https://a.example/t", "service": "s", "scope": "repository:a/b:pull,push",
    }  # fmt: skip
    assert auth.parse_challenge("") == ("", {})
    assert auth.parse_challenge("Basic realm=x, charset=UTF-8") == (
        "basic", {"realm": "x", "charset": "UTF-8"},
    )  # fmt: skip


def test_the_proxy_of_the_environment_is_used_but_not_for_loopback(
    registry: Registry, layout: Layout, artifact: Artifact, monkeypatch: pytest.MonkeyPatch,
    elsewhere: Elsewhere,
) -> None:  # fmt: skip
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
    monkeypatch.setenv("no_proxy", "")
    publish(registry.host, "proxied:1", artifact.packed)
    got(layout, f"{registry.host}/proxied:1")
    assert elsewhere.heard == []
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        # It does not do CONNECT, so this fails; but not by asking for the name itself.
        anyio.run(
            partial(
                pull.pull, layout, "sandbox.invalid/x:1", lambda _: None, chosen=True, patient=False
            )
        )


@pytest.mark.parametrize(
    "url", ["http://example.org/", "ftp://example.org/", "https:///x", "https://[::1", "x", ""]
)
def test_addresses_that_are_not_asked(url: str) -> None:
    with pytest.raises(DownloadFailed), Client().open("GET", url):
        raise AssertionError
    with pytest.raises((DownloadFailed, ImageNotFound)):
        http.check_url(url)
