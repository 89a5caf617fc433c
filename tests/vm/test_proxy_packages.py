"""Packages through the proxy: `pip`, `apt-get`, `npm` and `git` of a guest that has no other way.

Where this host gets its packages is read at the start, and is all of it that the guest can reach
beside what the default allowlist names.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from sandbox_rpc.host import registries
from tests.vm.conftest import MakeHost, Running
from tests.vm.test_packages import bring_pip, index_of

VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
URL = "http://10.0.2.100:8888"


@pytest.fixture(scope="module")
def behind(make_host: MakeHost) -> Running:
    """A sandbox behind its proxy, on this host's own network."""
    host = make_host("behind")
    workspace = host.workspace("behind")
    bring_pip(workspace)
    return Running(host, workspace, host.start(workspace, "--proxy"))


def audit(sandbox: Running) -> list[dict[str, Any]]:
    """What went through the proxy."""
    done = sandbox.host.run("proxy", "log", "-n", "10000", "--json", "-s", sandbox.name)
    return [json.loads(line) for line in done.out.splitlines()]


def test_every_session_knows_the_proxy(behind: Running) -> None:
    """Commands, login shells, the console's shell, services, sudo, apt and git."""
    wanted = [f"{name}={URL}" for name in VARIABLES]
    show = "env | grep -i _proxy= | grep -v -i no_proxy | sort"
    for script in (
        show, f"bash -lc '{show}'", f"sudo sh -c '{show}'", f"sudo -i sh -c '{show}'",
        f"sudo systemd-run -q --pipe --wait sh -c '{show}'",
        f"systemd-run -q --user --pipe --wait sh -c '{show}'",
    ):  # fmt: skip
        assert sorted(behind.sh(script).out.split()) == sorted(wanted), script
    assert sorted(behind.ssh(show).out.split()) == sorted(wanted)
    assert sorted(behind.run("sh", "-c", show).out.split()) == sorted(wanted)
    said = behind.sh("apt-config dump | grep -i 'Acquire::https\\?::Proxy '").out
    assert said.count(URL) == 2
    assert "nameserver" not in behind.sh("cat /etc/resolv.conf").out
    assert "default" not in behind.sh("ip route").out


def test_pip_installs(behind: Running) -> None:
    """From this host's index, and from nowhere else."""
    script = (
        "cd /tmp && export PYTHONPATH=/home/dev/workspace/tools PIP_DISABLE_PIP_VERSION_CHECK=1"
        " PYTHONDONTWRITEBYTECODE=1"
        " && python3 -m pip install -q --no-cache-dir --no-compile --target packages six"
        " && PYTHONPATH=packages python3 -c 'import six; print(six.__name__, six.__file__)'"
    )
    assert behind.sh(script).out == "six /tmp/packages/six.py\n"
    hosts = {one.host for one in registries.read(os.environ).registries}
    asked = {line["host"] for line in audit(behind) if line["allowed"]}
    assert asked
    assert asked <= hosts


def test_apt_and_npm_install(behind: Running) -> None:
    """Node comes by apt, npm from its registry as its own package."""
    behind.sh(
        "sudo apt-get -qq -o Acquire::Languages=none update"
        " && sudo apt-get -qq install -y --no-install-recommends nodejs >/dev/null"
    )
    registry = index_of("npm").rstrip("/")
    said = behind.sh(
        f"cd /tmp && curl -sf {registry}/npm/10.9.0 | jq -r .dist.tarball | xargs curl -sf"
        " | tar -xz && mkdir app && cd app && node ../package/bin/npm-cli.js"
        " install --silent --no-fund left-pad >&2"
        " && node -p 'require(\"left-pad\")(1, 3)'"
    ).out
    assert said == "  1\n"
    assert not [line for line in audit(behind) if not line["allowed"]]


def test_git_goes_by_the_proxy_too(behind: Running) -> None:
    """It says so itself: a host that is not allowed is refused by the proxy, not unknown."""
    done = behind.sh("git ls-remote https://git.example/x.git 2>&1", check=False)
    assert "403" in done.out, done.out
    blocked = [line for line in audit(behind) if line["host"] == "git.example"]
    assert blocked
    assert blocked[0]["method"] == "CONNECT"
