"""Packages in a real guest: `apt-get`, `pip` and `npm`, from where this host gets them.

The host's user has tokens in the configuration of the tools; the guest is to have none of them. The
names of registries are read from this host, whatever they are; how far registries open the network
is in test_reach.py, where it does not depend on what they are.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.host import registries
from tests.vm.conftest import MakeHost, Running

SECRET = "canaryT0ken8472canaryT0ken"
ELSEWHERE = "192.0.2.7"
"""Where nothing is: only what is written down about it matters."""


def index_of(kind: str) -> str:
    """Where this host's own tool gets its packages."""
    found = registries.read(os.environ).registries
    return next(one.url for one in found if one.kind == kind and one.role in ("index", "registry"))


@pytest.fixture(scope="module")
def supplied(make_host: MakeHost) -> Running:
    """A sandbox of a user with tokens in every configuration."""
    host = make_host("supplied")
    for name, text in (
        (".npmrc", f"registry={with_token(index_of('npm'))}\n_auth={SECRET}\n"
                   f"//{index_of('npm').split('/')[2]}/:_authToken={SECRET}\n"
                   f"@canary:registry=http://u:{SECRET}@{ELSEWHERE}:8081/npm/?t={SECRET}\n"
                   f"@path:registry=http://{ELSEWHERE}:8082/{SECRET}/\n"),
        (".pip/pip.conf", f"[global]\nindex-url = {with_token(index_of('pip'))}\n"
                          f"proxy = http://{SECRET}@{ELSEWHERE}:1\n"),
        (".netrc", f"machine {ELSEWHERE} login u password {SECRET}\n"),
        (".cargo/credentials.toml", f'[registry]\ntoken = "{SECRET}"\n'),
    ):  # fmt: skip
        path = host.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    workspace = host.workspace("supplied")
    bring_pip(workspace)
    # Cold, since what it was handed can be looked at then; a warm one gets the same by its port.
    return Running(host, workspace, host.start(workspace, "--warm", "never"))


def bring_pip(workspace: Path) -> None:
    """The newest pip: the one of an old Python does not run on the guest's new one."""
    tools = str(workspace / "tools")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tools, "pip"],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, stdin=subprocess.DEVNULL,
        check=True, timeout=120,
    )  # fmt: skip


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


def test_pip_installs(supplied: Running) -> None:
    """With what the guest is configured with."""
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
