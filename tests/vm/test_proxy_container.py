"""The container backend: tinyproxy by podman, in front of a real guest; one test for all of it.

Skipped where no container runs: that is the host's to have, and nothing else here needs it.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from typing import Any

import pytest

from tests.vm.conftest import MakeHost, Running
from tests.vm.host import wait_for
from tests.vm.test_network import own_addresses


def why_not() -> str:
    """Why no container can run here; empty where it can."""
    program = shutil.which("podman")
    if program is None:
        return "podman is not installed"
    for before in ([], ["--runtime", "runc"]):
        words = [program, *before, "info", "--format", "{{.Host.OCIRuntime.Name}}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            return ""
    return f"podman does not run: {done.stderr.strip()[-200:]}"


class Answer(http.server.BaseHTTPRequestHandler):
    """One word."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"word")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


REASON = why_not()


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_tinyproxy_in_a_container(make_host: MakeHost) -> None:
    """Default deny, the allowlist with a change while it runs, loopback only, its end."""
    host = make_host("contained")
    workspace = host.workspace("contained")
    address = next(one for one in own_addresses() if not one.startswith("127."))
    server = http.server.ThreadingHTTPServer((address, 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    name = f"{address.replace('.', '-')}.ip.invalid"
    value = host.start(
        workspace, "--proxy", "--proxy-backend", "container", "--proxy-port", f"80,443,{port}"
    )
    sandbox = Running(host, workspace, value)
    try:
        url = f"http://{address}:{port}/"
        ask = f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 60 {url}"
        assert sandbox.sh(ask).out == "403"
        containers = running(sandbox.name)
        assert len(containers) == 1
        ports = containers[0]["Ports"]
        assert {one["host_ip"] for one in ports} == {"127.0.0.1"}
        host.run("proxy", "allow", f"{address}:{port}", "-s", sandbox.name)
        wait_for(lambda: sandbox.sh(ask).out == "200", "the container to know it")
        host.run("proxy", "block", f"{address}:{port}", "-s", sandbox.name)
        wait_for(lambda: sandbox.sh(ask).out == "403", "the container to know that too")
        assert sandbox.sh(f"curl -s -o /dev/null -w '%{{http_code}}' http://{name}/").out == "403"
        room = host.room_of(sandbox.name)
        assert json.loads(room.proxy_wish.read_text())["container"] == sandbox.name
        (before,) = running(sandbox.name)
        subprocess.run(
            ["podman", "rm", "--force", before["Id"]], capture_output=True, check=True, timeout=60
        )
        wait_for(lambda: sandbox.sh(ask).out == "403", "another container", seconds=60)
        (after,) = running(sandbox.name)
        assert after["Id"] != before["Id"]
        os.kill(host.supervisor_pid(sandbox.name), 9)
        assert host.json("status", sandbox.name)["state"] == "running"
        assert sandbox.sh(ask).out == "403"
    finally:
        host.run("stop", "--force", sandbox.name)
        server.shutdown()
    wait_for(lambda: not running(sandbox.name), "the container's end")


def running(name: str) -> list[dict[str, Any]]:
    """The containers of a sandbox."""
    done = subprocess.run(
        ["podman", "ps", "--filter", f"name=^sandbox-proxy-{name}-", "--format", "json"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]") or []
    return found
