"""Packages in a real guest: `apt-get`, `pip` and `npm`, from where this host gets them.

The host's user has tokens in the configuration of the tools; the guest is to have none of them. The
names of registries are read from this host, whatever they are.
"""

from __future__ import annotations

import base64
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pip
import pytest

from sandbox_rpc.host import registries
from sandbox_rpc.network import control, launch
from sandbox_rpc.network.address import obstacle
from tests.vm.conftest import MakeHost, Running
from tests.vm.test_network import own_addresses

SECRET = "canaryT0ken8472canaryT0ken"
WORD = "a private registry"


class Answer(http.server.BaseHTTPRequestHandler):
    """A registry that has one word to say."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WORD)))
        self.end_headers()
        self.wfile.write(WORD.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Two ports of this host: the first one is a registry, the second one is not."""
    with ExitStack() as stack:
        servers = [http.server.ThreadingHTTPServer(("0.0.0.0", 0), Answer) for _ in range(2)]
        for server in servers:
            stack.callback(server.server_close)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            stack.callback(server.shutdown)
        yield servers[0].server_port, servers[1].server_port


@pytest.fixture(scope="module")
def address() -> str:
    """A private address that this host has on a network."""
    found = [
        one
        for one in own_addresses()
        if not one.startswith(("127.", "169.254.")) and obstacle(IPv4Address(one))
    ]
    assert found, "this test needs a private address beside loopback"
    return found[0]


def index_of(kind: str) -> str:
    """Where this host's own tool gets its packages."""
    found = registries.read(os.environ).registries
    return next(one.url for one in found if one.kind == kind and one.role in ("index", "registry"))


@pytest.fixture(scope="module")
def supplied(make_host: MakeHost, ports: tuple[int, int], address: str) -> Running:
    """A sandbox of a user with tokens in every configuration."""
    host = make_host("supplied")
    for name, text in (
        (".npmrc", f"registry={with_token(index_of('npm'))}\n_auth={SECRET}\n"
                   f"//{index_of('npm').split('/')[2]}/:_authToken={SECRET}\n"
                   f"@canary:registry=http://u:{SECRET}@{address}:{ports[0]}/npm/?t={SECRET}\n"
                   f"@path:registry=http://{address}:{ports[1]}/{SECRET}/\n"),
        (".pip/pip.conf", f"[global]\nindex-url = {with_token(index_of('pip'))}\n"
                          f"proxy = http://{SECRET}@{address}:1\n"),
        (".netrc", f"machine {address} login u password {SECRET}\n"),
        (".cargo/credentials.toml", f'[registry]\ntoken = "{SECRET}"\n'),
    ):  # fmt: skip
        path = host.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    workspace = host.workspace("supplied")
    shutil.copytree(Path(pip.__file__).parent, workspace / "tools" / "pip")
    return Running(host, workspace, host.start(workspace))


def with_token(url: str) -> str:
    """An address as a private registry's is often written down."""
    return re.sub(r"^(https?://)", rf"\1user:{SECRET}@", url)


def test_no_token_travels(supplied: Running) -> None:
    """Neither in the document that the guest was handed nor in what its agent made of it."""
    lines = supplied.sh("sudo cat /run/credentials/@system/sandbox.identity").out.splitlines()
    told = {key: base64.b64decode(value).decode("latin-1") for key, value in map(str.split, lines)}
    assert "@canary:registry=" in told["file:/etc/npmrc"]
    assert "@path:" not in told["file:/etc/npmrc"]
    assert SECRET not in repr(told)
    found = supplied.sh(
        # By standard input: sudo writes what it runs into the journal.
        "sudo grep -rslf - /etc /home/dev --exclude-dir=workspace /usr/local /usr/etc /root /run"
        " /var/lib/apt/lists; env | grep SANDBOX_CONTAINER",
        input=SECRET,
    ).out.splitlines()
    assert found == [f"SANDBOX_CONTAINER={supplied.name}"]
    warnings = repr(supplied.value["warnings"])
    assert "token" in warnings
    assert SECRET not in warnings


def test_a_private_registry_is_reached_at_its_port_only(
    supplied: Running, ports: tuple[int, int], address: str
) -> None:
    """The same server at the next port is the host's, and so is everything else of it."""
    url = "$(grep -o 'http://.*/npm/' /etc/npmrc)"
    assert supplied.sh(f"curl -s --max-time 60 {url}").out == WORD
    other = supplied.sh(f"curl -s --max-time 60 http://{address}:{ports[1]}/ || echo status $?").out
    assert other == "status 7\n"
    neighbour = str(IPv4Address(int(IPv4Address(address)) ^ 1))
    doors = [(neighbour, ports[0]), (address, 22), ("169.254.169.254", 80)]
    for name, port in doors:
        script = f"timeout 60 bash -c 'exec 3<>/dev/tcp/{name}/{port}' 2>&1 | tail -n 1"
        assert "refused" in supplied.sh(script).out
    running = launch.attach(supplied.host.room_of(supplied.name).network_control)
    try:
        status = control.call(running.control, "status")[0]
    finally:
        running.control.close()
    refused = {(one["address"], one["port"]) for one in status["refusals"]}
    assert refused >= {*doors, (address, ports[1])}


def test_pip_installs(supplied: Running) -> None:
    """The pip of these tests, with what the guest is configured with."""
    script = (
        "cd /tmp && export PYTHONPATH=/home/dev/workspace/tools PIP_DISABLE_PIP_VERSION_CHECK=1"
        " PYTHONDONTWRITEBYTECODE=1"
        " && python3 -m pip install -q --no-cache-dir --no-compile --target packages six"
        " && PYTHONPATH=packages python3 -c 'import six; print(six.__name__, six.__file__)'"
    )
    assert supplied.sh(script).out == "six /tmp/packages/six.py\n"


def test_apt_and_npm_install(supplied: Running) -> None:
    """Node comes by apt, npm from its registry as its own package."""
    supplied.sh(
        "sudo apt-get -qq -o Acquire::Languages=none update"
        " && sudo apt-get -qq install -y --no-install-recommends nodejs >/dev/null"
    )
    registry = index_of("npm").rstrip("/")
    # One run of npm: its start alone is ten seconds of an emulated processor.
    said = supplied.sh(
        f"cd /tmp && curl -sf {registry}/npm/10.9.0 | jq -r .dist.tarball | xargs curl -sf"
        " | tar -xz && mkdir app && cd app && node ../package/bin/npm-cli.js"
        " install --silent --no-fund left-pad >&2"
        " && node -p 'require(\"left-pad\")(1, 3)'"
    ).out
    assert said == "  1\n"


def test_authorities_of_the_host_are_trusted(supplied: Running) -> None:
    """As many as were found, in the guest's own bundle and beside it."""
    count = len(registries.read({"PATH": os.environ["PATH"], "HOME": "/nonexistent"}).certificates)
    script = "grep -c BEGIN /etc/ssl/sandbox.pem 2>/dev/null || echo 0"
    assert int(supplied.sh(script).out.splitlines()[0]) == count
    assert supplied.sh("test -e /etc/ssl/certs/ca-certificates.crt && echo yes").out == "yes\n"
