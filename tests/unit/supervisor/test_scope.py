"""The command lines and files of the scope around a sandbox.

No user manager is to be had where these tests run; a real one is the guest's: tests/vm/test_guest.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox_rpc.supervisor import scope

UNIT = "sandbox-app-0123abcd.scope"
PATH = f"/user.slice/user-1000.slice/user@1000.service/app.slice/{UNIT}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with a user manager, in files: PATH, the runtime folder, the hierarchy."""
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "private").touch()
    group = tmp_path / PATH.lstrip("/")
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "pids.max").write_text("max\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in (
        ("systemd-run", "exit 1"),
        ("systemctl", f'echo "$@" >>{tmp_path}/said; . {tmp_path}/act'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "act").write_text(
        f'for word; do case $word in MemoryMax=*) echo "${{word#*=}}" >{group}/memory.max;; '
        f'TasksMax=*) echo "${{word#*=}}" >{group}/pids.max;; esac; done'
    )
    (tmp_path / "own").write_text(f"12:pids:/x\n0::{PATH}\n")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(scope, "HIERARCHY", tmp_path)
    monkeypatch.setattr(scope, "OWN", tmp_path / "own")
    return tmp_path


def test_the_command_that_makes_one(host: Path) -> None:
    first, second = scope.command("sandbox-app"), scope.command("sandbox-app")
    assert first[:5] == ["systemd-run", "--user", "--scope", "--quiet", "--collect"]
    assert first[-2:] == ["--description=Sandbox sandbox-app", "--"]
    unit = first[5].removeprefix("--unit=")
    assert first[5] != second[5], "the one before may still be ending"
    assert scope.place(f"0::/a/{unit}\n", "sandbox-app") == f"/a/{unit}"


def test_without_a_manager(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(host / "none"))
    assert scope.command("sandbox-app") == []
    layer = scope.limit("sandbox-app", 2048, 2)
    assert (layer.active, layer.detail) == (False, "this session has no systemd user manager")
    monkeypatch.setenv("PATH", str(host))
    assert scope.missing() == "there is no systemd"


def test_the_limits_are_the_guests_size_and_something(host: Path) -> None:
    layer = scope.limit("sandbox-app", 2048, 2)
    assert layer.active, layer.detail
    assert "4.0 GiB and 514 tasks" in layer.detail
    assert (host / "said").read_text() == (
        f"--user set-property --runtime {UNIT} MemoryMax={4 << 30} TasksMax=514\n"
    )


@pytest.mark.parametrize(
    "own",
    [
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        f"0::/user.slice/{UNIT}/inner\n",
        "0::/app.slice/sandbox-other-0123abcd.scope\n",
        "0::/app.slice/sandbox-app-two-0123abcd.scope\n",
        "12:pids:/x\n",
    ],
)
def test_a_scope_that_is_not_ours_is_left_alone(host: Path, own: str) -> None:
    (host / "own").write_text(own)
    assert not scope.limit("sandbox-app", 2048, 2).active
    assert not (host / "said").exists()


@pytest.mark.parametrize(
    ("act", "said"),
    [("true", "systemd set no MemoryMax: memory.max is max"), ("exit 1", "exit status 1")],
)
def test_limits_that_do_not_come_about(host: Path, act: str, said: str) -> None:
    (host / "act").write_text(act)
    layer = scope.limit("sandbox-app", 2048, 2)
    assert not layer.active
    assert said in layer.detail


def test_a_manager_that_does_not_answer(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("systemctl", 10)

    monkeypatch.setattr(subprocess, "run", late)
    assert "timed out" in scope.limit("sandbox-app", 2048, 2).detail
