"""One start, its value, and every command that finds the sandbox again."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from sandbox_rpc.host import locks
from sandbox_rpc.images.reference import BUILT as DEFAULT_REF
from tests.vm.conftest import Running

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def test_start_prints_the_sandbox(sandbox: Running) -> None:
    """Every field of the value is that of this very machine."""
    value, host = sandbox.value, sandbox.host
    assert value["name"] == "sandbox-shared"
    assert value["state"] == "running"
    assert value["workspace"] == str(sandbox.workspace)
    assert value["image"] == DEFAULT_REF
    assert DIGEST.fullmatch(value["imageDigest"])
    assert (host.layout.images / value["imageDigest"].removeprefix("sha256:")).is_dir()
    assert value["accelerator"] in ("kvm", "tcg")
    assert value["network"] == "open"
    assert value["workspaceSecurity"] == "none"
    assert value["pid"] == host.qemu_pid(sandbox.name)
    assert value["startedAt"].startswith("20")
    assert value["startup"]["kind"] == "cold"
    assert value["startup"]["reason"] == "warm = never"
    phases = [phase["name"] for phase in value["startup"]["phases"]]
    assert phases == ["image", "disk", "identity", "qemu", "kernel", "boot", "login"]
    ssh = value["ssh"]
    assert (ssh["host"], ssh["user"], ssh["alias"]) == ("127.0.0.1", "dev", sandbox.name)
    for key in ("configFile", "knownHostsFile", "identityFile"):
        assert Path(ssh[key]).is_file()
    assert Path(ssh["knownHostsFile"]).read_text() == f"{sandbox.name} {ssh['hostKey']}\n"
    assert stat.S_ISSOCK(os.stat(value["consoleSocket"]).st_mode)
    assert Path(value["consoleLog"]).is_file()


def test_sizes_are_those_of_the_guest(sandbox: Running) -> None:
    """Memory, processors and disk are what the value says."""
    found = sandbox.sh("awk '/MemTotal/{print $2}' /proc/meminfo; nproc; lsblk -bdno SIZE /dev/vda")
    memory, cpus, disk = map(int, found.out.split())
    assert sandbox.value["cpus"] == cpus == 2
    assert sandbox.value["memoryMib"] == 2048
    assert 1800 << 10 < memory <= 2048 << 10
    assert disk == sandbox.value["diskMib"] << 20


def test_two_starts_are_one_boot(sandbox: Running) -> None:
    """Both commands returned the same machine."""
    first, second = sandbox.starts
    assert first["pid"] == second["pid"]
    assert first["startedAt"] == second["startedAt"]
    assert sandbox.host.qemu_pid(sandbox.name) == first["pid"]
    events = sandbox.host.room_of(sandbox.name).events.read_text()
    assert events.count('"phase": "disk"') == 1, events


def test_a_start_finds_the_running_one(sandbox: Running) -> None:
    """Also by the folder's other names: relative, with a trailing slash, through a link."""
    link = sandbox.host.folder / "work" / "link"
    link.symlink_to(sandbox.workspace)
    words = (str(sandbox.workspace), f"{sandbox.workspace}/", str(link))
    values = [sandbox.host.json("start", word) for word in words]
    values.append(sandbox.host.json("start", cwd=sandbox.workspace))
    assert {value["pid"] for value in values} == {sandbox.value["pid"]}
    assert {value["name"] for value in values} == {sandbox.name}


def test_status_list_and_info(sandbox: Running) -> None:
    """They agree with each other."""
    host = sandbox.host
    assert host.json("status", sandbox.name)["pid"] == sandbox.value["pid"]
    assert host.json("status", cwd=sandbox.workspace)["name"] == sandbox.name
    assert host.json("info", sandbox.name)["ssh"] == sandbox.value["ssh"]
    assert sandbox.name in [one["name"] for one in host.json("list")]
    assert sandbox.name in host.run("list").out
    shown = host.run("status", sandbox.name).out
    for text in ("running", str(sandbox.workspace), "box.namespace: on", "box.filter: on"):
        assert text in shown
    told = host.run("info", sandbox.name).out
    assert f"ssh -F {host.home_of(sandbox.name).ssh_config} {sandbox.name}" in told
    assert "socat STDIO,raw,echo=0,escape=0x1d UNIX-CONNECT:" in told


def test_status_is_by_exit_code_too(sandbox: Running) -> None:
    """As service managers have it: 0 running, 3 not."""
    host = sandbox.host
    assert host.run("status", sandbox.name).status == 0
    other = host.workspace("never-started")
    done = host.run("status", str(other), check=False)
    assert done.status == 3
    assert "stopped" in done.out
    assert host.run("status", "sandbox-nobody", check=False).status == 11


def test_files_for_scripts(sandbox: Running) -> None:
    """Those the seed's documents name."""
    room = sandbox.host.room_of(sandbox.name)
    assert int(room.qemu_pid.read_text()) == sandbox.value["pid"]
    assert int(room.ssh_port.read_text()) == sandbox.value["ssh"]["port"]
    assert room.workspace_path.read_text() == f"{sandbox.workspace}\n"


def test_one_supervisor_holds_its_lock_and_not_the_machines(sandbox: Running) -> None:
    """vm.lock is QEMU's alone, so it tells the truth whoever dies."""
    home = sandbox.host.home_of(sandbox.name)
    assert locks.holders(home.supervisor_lock) == [sandbox.host.supervisor_pid(sandbox.name)]
    assert locks.holders(home.vm_lock) == [sandbox.value["pid"]]


def test_a_subfolder_enters_the_running_sandbox(sandbox: Running) -> None:
    """And the guest's folder is the one that corresponds."""
    folder = sandbox.workspace / "sub" / "folder"
    done = sandbox.host.run("--", "sh", "-c", "pwd; hostname", cwd=folder)
    assert done.out == f"/home/dev/workspace/sub/folder\n{sandbox.name}\n"
    assert sandbox.host.run("exec", "--", "pwd", cwd=folder).out.endswith("/sub/folder\n")
    assert sandbox.host.names().count("sandbox-folder") == 0


def test_forget_refuses_a_running_one(sandbox: Running) -> None:
    """Its name must not become another folder's while it lives."""
    done = sandbox.host.run("forget", sandbox.name, check=False)
    assert done.status == 11
    assert "running" in done.err


def test_another_folder_cannot_take_its_name(sandbox: Running) -> None:
    """A name means one folder."""
    other = sandbox.host.workspace("other")
    done = sandbox.host.run("start", str(other), "--name", sandbox.name, check=False)
    assert done.status == 11
    assert str(sandbox.workspace) in done.err


@pytest.mark.parametrize("word", ["shared", "./shared"])
def test_short_names(sandbox: Running, word: str) -> None:
    """`sandbox status shared` beside the folder, and from anywhere."""
    cwd = sandbox.workspace.parent if "/" in word else None
    assert sandbox.host.json("status", word, cwd=cwd)["name"] == sandbox.name
