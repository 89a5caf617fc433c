"""What a guest without the agent is asked to do after its first login."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox_rpc.supervisor import settle

MOUNTED = "workspace {place} 9p rw,nosuid,cache=0x5,access=client,directio,trans=virtio 0 0\n"
OTHERWISE = "workspace {place} 9p rw,access=user,trans=virtio 0 0\n"


def run(folder: Path, mounts: str, environment: dict[str, str], **tools: str) -> tuple[int, str]:
    """Run the script with tools that only say what they were asked; its status and their words."""
    place = folder / "workspace"
    (folder / "mounts").write_text(mounts.format(place=place))
    (folder / "environment").touch()
    answer = 'case $1 in umount) : >"$MOUNTS";; tee) cat >>"$3";; esac'
    bodies = {
        "sudo": f'shift; echo "$*" >>"$LOG"; {answer}',
        "systemctl": "exit 1",
        **tools,
    }
    for name, body in bodies.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    script = settle.script(environment).replace("/home/dev/workspace", str(place))
    script = script.replace("/proc/mounts", str(folder / "mounts"))
    script = script.replace("/etc/environment", str(folder / "environment"))
    done = subprocess.run(
        ["sh", "-s"], input=script, text=True, check=False,
        env={
            "PATH": f"{folder}:/usr/bin:/bin", "LOG": str(folder / "log"),
            "MOUNTS": str(folder / "mounts"),
        },
    )  # fmt: skip
    log = folder / "log"
    return done.returncode, log.read_text() if log.exists() else ""


def test_what_is_mounted_well_is_left(tmp_path: Path) -> None:
    assert run(tmp_path, MOUNTED, {}) == (0, "")


def test_a_write_cache_is_not_left(tmp_path: Path) -> None:
    status, said = run(tmp_path, MOUNTED.replace("directio,", ""), {})
    assert status == 0
    assert ",cache=mmap,directio," in said.splitlines()[-1]


def test_what_is_not_mounted_is(tmp_path: Path) -> None:
    status, said = run(tmp_path, "", {})
    assert status == 0
    assert "mount -t 9p -o trans=virtio,version=9p2000.L" in said
    assert "umount" not in said


def test_an_images_own_mount_gets_our_options(tmp_path: Path) -> None:
    status, said = run(tmp_path, OTHERWISE, {})
    assert status == 0
    assert said.splitlines()[0] == f"umount {tmp_path / 'workspace'}"
    assert "cache=mmap" in said.splitlines()[-1]


def test_one_that_is_busy_stays(tmp_path: Path) -> None:
    busy = "shift; [ $1 != umount ] && cat >/dev/null"
    status, said = run(tmp_path, OTHERWISE, {"A": "b"}, sudo=busy)
    assert (status, said) == (0, "")


def test_a_kernel_without_9p_is_an_error(tmp_path: Path) -> None:
    assert run(tmp_path, "", {}, sudo="shift; [ $1 != mount ]")[0] == 41


@pytest.mark.parametrize("value", ["plain", "it's", "a b", "$HOME", "`x`", "-n"])
def test_the_environment_is_added_once(tmp_path: Path, value: str) -> None:
    for _ in range(2):
        assert run(tmp_path, MOUNTED, {"NAME": value, "OTHER": "x"})[0] == 0
    assert (tmp_path / "environment").read_text() == f"NAME={value}\nOTHER=x\n"


def test_a_guest_that_refuses_is_an_error(tmp_path: Path) -> None:
    assert run(tmp_path, MOUNTED, {"A": "b"}, sudo="cat >/dev/null; exit 1")[0] == 42
