"""`sandbox code` and `sandbox idea`, up to the editor that they start."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_rpc.cli import code, idea, main, window
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SshUnreachable
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.ssh import include


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sandbox runs, and a user without editors."""
    home, folder = tmp_path / "home", tmp_path / "My App" / "sub"
    home.mkdir()
    folder.mkdir(parents=True)
    for name, value in {"HOME": home, "SANDBOX_CACHE_BASE": tmp_path / "cache"}.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "bin").mkdir()
    for tool in ("ssh",):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True)
        (tmp_path / "bin" / tool).symlink_to(found.stdout.strip())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    layout = Layout.of_user()
    record = names.allot(layout, str(folder.parent))
    block = f"Host {record.name}\n    HostKeyAlias {record.name}\n"
    layout.ssh_config.write_text(block)
    sandbox = Sandbox(name=record.name, state=State.RUNNING, workspace=record.workspace)
    monkeypatch.setattr(window, "begin", lambda _: sandbox)
    return folder


def tool(project: Path, name: str) -> Path:
    """A program that writes down its arguments."""
    file = project.parents[1] / "bin" / name
    out = file.with_suffix(".args")
    file.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{out}"\n')
    file.chmod(0o755)
    return out


def become(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    seen: list[list[str]] = []

    def execvp(_: str, argv: list[str]) -> None:
        seen.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr("os.execvp", execvp)
    return seen


def agree() -> None:
    layout = Layout.of_user()
    include.add(include.config_file(Path.home()), layout.ssh_config)


def test_the_editor_gets_the_folder_in_the_guest(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subfolder is the subfolder there; capitals in the name survive the editor."""
    agree()
    tool(project, "cursor")
    seen = become(monkeypatch)
    with pytest.raises(SystemExit):
        main.main(["code", "--cursor", str(project)])
    ((command, option, uri),) = seen
    assert (Path(command).name, option) == ("cursor", "--folder-uri")
    assert uri == f"vscode-remote://{code.authority('sandbox-My_App')}/home/dev/workspace/sub"


@pytest.mark.parametrize("alias", ["sandbox-app", "sandbox-My_App", "cafe"])
def test_authorities(alias: str) -> None:
    """Small letters as they are, the rest in hexadecimal, as providers read it."""
    found = code.authority(alias).removeprefix("ssh-remote+")
    assert found == found.lower()
    if alias != "sandbox-app":
        assert json.loads(bytes.fromhex(found)) == {"hostName": alias}
    else:
        assert found == alias


def test_without_a_command_the_desktop_opens_the_url(project: Path) -> None:
    """By the scheme of the editor."""
    agree()
    out = tool(project, "xdg-open")
    assert main.main(["code", "--codium", str(project)]) == 0
    assert out.read_text().startswith("vscodium://vscode-remote/ssh-remote+")
    assert main.main(["idea", "--product", "PY", str(project)]) == 0
    assert out.read_text() == idea.url("sandbox-My_App", "/home/dev/workspace/sub", "PY") + "\n"


def test_without_anything_the_url_is_in_the_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To be opened by hand."""
    agree()
    assert main.main(["idea", str(project)]) == 10
    assert "jetbrains://gateway/ssh/environment?h=sandbox-My_App" in capsys.readouterr().err


def test_nobody_to_ask(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is named, and nothing is changed."""
    assert main.main(["code", str(project)]) == 13
    assert str(Layout.of_user().ssh_config) in capsys.readouterr().err
    assert not include.config_file(Path.home()).exists()


@pytest.mark.parametrize(("answer", "added"), [("\n", True), ("y\n", True), ("n\n", False)])
def test_asked(project: Path, monkeypatch: pytest.MonkeyPatch, answer: str, added: bool) -> None:
    """Enter is yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    with suppress(SshUnreachable):
        window.introduce(Layout.of_user(), "sandbox-My_App", ask=True)
    assert include.knows(include.config_file(Path.home()), "sandbox-My_App") == added
