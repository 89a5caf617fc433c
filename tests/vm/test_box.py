"""What holds QEMU, as the kernel tells of its process."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sandbox_rpc.network import launch
from sandbox_rpc.qemu import capabilities
from tests.vm.conftest import Running

VISIBLE = {
    "bin", "dev", "etc", "image", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr",
    "vm", "persist", "workspace",
}  # fmt: skip
"""All that QEMU may see at its root."""


@pytest.fixture
def process(either: Running) -> Path:
    """QEMU's folder in /proc."""
    return Path("/proc", str(either.value["pid"]))


def is_warm(running: Running) -> bool:
    """Whether it started from a template."""
    return bool(running.value["startup"]["kind"] == "warm")


def test_all_layers_hold(either: Running) -> None:
    """And the sandbox's value says so."""
    layers = {layer["name"]: layer["active"] for layer in either.value["box"]}
    walls = ("namespace", "filter", "seccomp", "network.namespace", "network.seccomp")
    assert {name: layers[name] for name in walls} == dict.fromkeys(walls, True)


def test_no_privileges(process: Path) -> None:
    """None held, none to be had."""
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Name"].startswith("qemu-system")
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0


def test_its_network_namespace_is_empty(process: Path) -> None:
    """Whatever gets out of QEMU finds no network."""
    lines = (process / "net" / "dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert len((process / "net" / "tcp").read_text().splitlines()) == 1


def test_the_host_user_is_dev(either: Running, process: Path) -> None:
    """One uid is mapped: that of the user who started it."""
    uid = either.host.uid
    for table in ("uid_map", "gid_map"):
        assert (process / table).read_text().split() == ["1000", str(uid), "1"]
    assert (process / "status").read_text().count(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}") == 1


def test_it_sees_its_own_files_only(either: Running, process: Path) -> None:
    """No home, no cache, no configuration, no other process."""
    root = process / "root"
    seen = {path.name for path in root.iterdir()}
    assert seen - {"template"} <= VISIBLE
    # A machine that went on from its template reads that one's memory and disk.
    assert ("template" in seen) is is_warm(either)
    assert {"image", "vm", "workspace"} <= seen
    assert {path.name for path in (root / "image").iterdir()} == {"disk.qcow2", "vmlinuz", "initrd"}
    assert list((root / "tmp").iterdir()) == []
    assert os.path.samestat(os.stat(root / "workspace"), os.stat(either.workspace))
    assert os.path.samestat(os.stat(root / "vm"), os.stat(either.host.room_of(either.name).qemu))
    for secret in ("etc/passwd", "etc/shadow", "etc/ssh", "root", "home"):
        assert not (root / secret).exists()
    for path in (either.host.home, either.host.base, either.workspace):
        assert path.exists()
        assert not (root / path.relative_to("/")).exists()
    processes = {path.name for path in (root / "proc").iterdir() if path.name.isdigit()}
    assert processes == {"1"}


def test_it_can_write_to_three_folders_only(either: Running, process: Path) -> None:
    """Its own and what is shared; the image is read-only, also for its owner.

    A QEMU before 8.2 wants to be able to write to its template's memory (docs/security.md).
    """
    writable = set()
    for line in (process / "mountinfo").read_text().splitlines():
        fields = line.split()
        if "rw" in fields[5].split(","):
            writable.add(fields[4])
    beyond = {path for path in writable if path.split("/")[1] not in ("dev", "proc", "tmp")}
    found = capabilities.find_qemu("", either.host.layout.qemu_probe)
    memory = {"/template/memory"} if is_warm(either) and not found.seals_memory else set()
    assert beyond == {"/vm", "/persist", "/workspace"} | memory


def test_it_is_tied_to_nobody(either: Running, process: Path) -> None:
    """No pipe leads anywhere, and the session is its own: who dies does not take it along."""
    log = str(either.host.room_of(either.name).qemu_log)
    assert str((process / "fd" / "0").readlink()) == "/dev/null"
    assert {str((process / "fd" / number).readlink()) for number in "12"} == {log}
    session = os.getsid(int(process.name))
    assert session not in (os.getsid(0), os.getsid(either.host.supervisor_pid(either.name)))


def test_the_network_process_sees_no_file_of_anybody(either: Running) -> None:
    """No home, no workspace, no state, no process; no rights to be had."""
    running = launch.attach(either.host.room_of(either.name).network_control)
    running.control.close()
    process = Path("/proc", str(running.pid))
    root = process / "root"
    for path in (either.host.home, either.host.base, either.workspace):
        assert not (root / path.relative_to("/")).exists()
    assert not (root / "proc").exists()
    assert {path.name for path in (root / "etc").iterdir()} <= {"resolv.conf", "ld.so.cache"}
    mounts = (process / "mountinfo").read_text().splitlines()
    writable = {line.split()[4] for line in mounts if "rw" in line.split()[5].split(",")}
    assert {path for path in writable if path.split("/")[1] != "dev"} == {"/etc"}
    status = (process / "status").read_text()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000",
                 "CapBnd:\t0000000000000000"):  # fmt: skip
        assert line in status
    session = os.getsid(running.pid)
    assert session not in (os.getsid(0), os.getsid(either.host.supervisor_pid(either.name)))


def test_limits_hold_or_are_said_not_to(either: Running) -> None:
    """As one for QEMU and all that belongs to it, where the user has a service manager."""
    (limits,) = [layer for layer in either.value["box"] if layer["name"] == "limits"]
    group = Path(f"/proc/{either.value['pid']}/cgroup").read_text().rpartition("0::")[2].strip()
    file = Path("/sys/fs/cgroup", group[1:], "memory.max")
    if limits["active"]:
        assert int(file.read_text()) == (2048 + 2048) << 20
    else:
        assert re.search("systemd|scope", limits["detail"])
