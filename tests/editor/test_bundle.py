"""The service as the .vsix carries it, on a bare Python: all but what needs compiled packages."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext

from sandbox_rpc.client import Client
from sandbox_rpc.protocol.errors import ToolMissing
from tests.editor.conftest import NewEditor
from tests.editor.editor import START_MS, Window
from tests.vm.conftest import MakeHost
from tests.vm.host import wait_for

BARE = str(getattr(sys, "_base_executable", sys.executable))
"""The Python below the tests' virtual environment."""


def pip_configuration() -> dict[str, str]:
    """Where this host's pip gets packages: a user of these tests has another home."""
    wanted = ("PIP_", "SSL_CERT_", "REQUESTS_CA")
    found = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
    file = Path.home() / ".config" / "pip" / "pip.conf"
    return {"PIP_CONFIG_FILE": str(file), **found} if file.exists() else found


@pytest.fixture(scope="module")
def libs(vsix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(vsix) as archive:
        archive.extractall(folder)
    return folder / "extension" / "bundled"


def test_a_life_by_the_bundled_service(libs: Path, make_host: MakeHost) -> None:
    """Start, console, stop; a command in the guest says what it lacks."""
    found = subprocess.run(
        [BARE, "-I", "-c", "import importlib.util as u; print(u.find_spec('paramiko'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "None\n", "the Python below the tests is not bare"
    host = make_host("bundle")
    workspace = host.workspace("bundle")
    environment = {**host.environment, "PYTHONPATH": str(libs)}
    words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    heard = bytearray()

    def hear(method: str, params: Any) -> None:
        if method == "console/output":
            heard.extend(base64.b64decode(params.data))

    with Client([*words, BARE, "-P", "-m", "sandbox_rpc", "--stdio"]) as client:
        client.listen(hear)
        sandbox = client.request_raw("sandbox/start", {"workspace": str(workspace)})
        name = sandbox["name"]
        assert sandbox["state"] == "running"
        client.request_raw("console/attach", {"name": name, "stream": "s", "offset": 0})
        wait_for(lambda: b"dev@sandbox-bundle" in heard, "the console", seconds=60)
        with pytest.raises(ToolMissing) as caught:
            client.request_raw("sandbox/exec", {"name": name, "token": "t", "argv": ["true"]})
        assert caught.value.details["tool"] == "python-packages"
        assert client.request_raw("sandbox/stop", {"name": name})["state"] == "stopped"


def test_one_action_brings_the_rest(
    new_editor: NewEditor, make_host: MakeHost, context: BrowserContext
) -> None:
    """A virtual environment of the extension's own, which the service then runs in."""
    host = make_host("packages")
    host.extra.update(pip_configuration())
    editor = new_editor(host, remote=False, kvmSandbox__server__interpreter=BARE)
    window = Window.open(editor, context, host.workspace("packages"))
    window.status.wait_for(timeout=60_000)
    window.palette("Install Packages for the Service")
    window.toast("packages are installed", START_MS)
    (python,) = editor.folder.glob("data/User/globalStorage/*/environment/bin/python3")
    host.call([str(python), "-c", "import paramiko, zstandard"])
    window.palette("KVM Sandbox: Doctor")
    window.page.locator(".monaco-editor .view-lines", has_text="andbox").wait_for(timeout=60_000)
    assert "the extension's virtual environment" in editor.extension_log()
    window.page.close()
