"""The guest: who it is, that all of it came up, and that no secret lies about."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.vm import host as hosts
from tests.vm.conftest import Running

NESTED = 10


def test_identity(sandbox: Running) -> None:
    """Host name, machine id and user; the journal has them from its first line."""
    script = """
        hostname; cat /etc/hostname /etc/machine-id
        getent hosts "$(hostname)" >/dev/null && echo known
        id -u; id -g; id -un; echo "$HOME $SHELL"; sudo -n id -u
        sudo journalctl -b -o json | head -1; sudo journalctl -b -o json -n 1
    """
    lines = sandbox.sh(script).out.splitlines()
    first, last = json.loads(lines[-2]), json.loads(lines[-1])
    identity = lines[2]
    assert lines[:2] == [sandbox.name] * 2
    assert re.fullmatch(r"[0-9a-f]{32}", identity)
    assert identity != Path("/etc/machine-id").read_text().strip()
    assert lines[3:-2] == ["known", "1000", "1000", "dev", "/home/dev /bin/bash", "0"]
    for entry in (first, last):
        assert (entry["_MACHINE_ID"], entry["_HOSTNAME"]) == (identity, sandbox.name)


def test_everything_came_up(sandbox: Running) -> None:
    """No unit failed, none still waits."""
    done = sandbox.sh(
        "systemctl is-system-running --wait; systemctl --failed --no-legend --plain;"
        " systemctl --user is-system-running --wait; systemctl --user --failed --no-legend --plain",
        check=False,
    )
    assert done.out == "running\nrunning\n"


def test_a_full_debian(sandbox: Running) -> None:
    """13, and what a developer expects."""
    done = sandbox.sh(
        ". /etc/os-release; echo $ID $VERSION_ID; cat /proc/1/comm; "
        "command -v git curl python3 sudo ssh perl make less vi nano rsync jq >/dev/null; echo $?; "
        "findmnt -no FSTYPE,TARGET,OPTIONS /home/dev/workspace"
    )
    distribution, first, tools, mount = done.out.splitlines()
    assert (distribution, first, tools) == ("debian 13", "systemd", "0")
    kind, target, options = mount.split()
    assert (kind, target) == ("9p", "/home/dev/workspace")
    # Newer kernels show cache=mmap as the bits it stands for.
    shown = set(options.replace("cache=0x5", "cache=mmap").split(","))
    wanted = {"rw", "nosuid", "nodev", "access=client", "msize=512000", "cache=mmap", "directio"}
    assert wanted <= shown


def test_the_guest_knows_that_it_is_one(sandbox: Running) -> None:
    """In a session, a login shell, under sudo, and in services of both managers."""
    ask = "printenv SANDBOX_CONTAINER"
    done = sandbox.sh(
        f"{ask}; bash -lc '{ask}'; sudo -n {ask}; sudo -n systemd-run -qP --wait {ask};"
        f" systemd-run --user -qP --wait {ask}"
    )
    assert done.out.splitlines() == [sandbox.name] * 5


@pytest.fixture(scope="module")
def program(sandbox: Running) -> str:
    """Our own program in the guest; what to put before a Python there."""
    folder = sandbox.host.folder / "tmp" / "program"
    hosts.copy_package(folder)
    packed = sandbox.host.call(["tar", "-c", "-C", str(folder), "."]).raw
    sandbox.sh("mkdir program && tar -x -C program", input=packed)
    return "PYTHONPATH=$HOME/program"


LIMITED = """
import os, subprocess, sys
from pathlib import Path
from sandbox_rpc.supervisor import scope
if sys.argv[1:] == ["inside"]:
    layer = scope.limit("sandbox-it", 100, 1)
    group = scope.HIERARCHY / Path("/proc/self/cgroup").read_text().split("::")[1].strip()[1:]
    print(layer.active, layer.detail)
    print((group / "memory.max").read_text() + (group / "pids.max").read_text(), end="")
else:
    print(scope.limit("sandbox-it", 100, 1).detail, flush=True)
    inside = [*scope.command("sandbox-it"), sys.executable, __file__, "inside"]
    subprocess.run(inside, check=True)
"""


def test_the_limits_of_a_scope_by_a_real_systemd(sandbox: Running, program: str) -> None:
    """The guest's user manager stands in for a host's: the kernel takes them."""
    sandbox.sh("cat >limited.py", input=LIMITED)
    said = sandbox.sh(f"{program} python3 limited.py").out.splitlines()
    assert said == [
        "the sandbox is in no scope of its own",
        "True QEMU and all that belongs to it have 2.1 GiB and 513 tasks",
        str((100 + 2048) << 20),
        "513",
    ]


def test_nesting_is_refused_unless_forced(sandbox: Running, program: str) -> None:
    """By our own program, run in the guest."""
    run = (
        f"mkdir -p inner && {program} SANDBOX_CACHE_BASE=/tmp/nested"
        " python3 -m sandbox_rpc.cli.main start inner --json"
    )
    refused = sandbox.sh(run, check=False)
    assert refused.status == NESTED
    assert json.loads(refused.err)["data"]["kind"] == "nested"
    assert sandbox.name in json.loads(refused.err)["message"]
    forced = sandbox.sh(f"{run} --force", check=False)
    # It gets as far as a guest without QEMU lets it.
    assert '"qemuMissing"' in forced.err, forced.err


def test_no_secret_lies_about(sandbox: Running) -> None:
    """The host key came through a file that is gone, never by the command line."""
    room = sandbox.host.room_of(sandbox.name)
    pid = sandbox.value["pid"]
    command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    public = sandbox.value["ssh"]["hostKey"].split()[1].encode()
    for text in (b"PRIVATE", b"authorized_keys", b"ssh-ed25519", public):
        assert text not in command_line
        assert text not in environment
    assert [path.name for path in room.qemu.iterdir() if "credential" in path.name] == []
    for path in room.folder.rglob("*"):
        if path.is_file() and path != room.overlay:
            assert b"PRIVATE KEY" not in path.read_bytes(), path
    done = sandbox.sh(
        "cat /sys/firmware/dmi/entries/11-*/raw /sys/firmware/dmi/tables/DMI"
        " /run/credentials/@system/* /etc/ssh/ssh_host_ed25519_key | wc -c; ls /etc/ssh/*_key"
    )
    assert done.out == "0\n/etc/ssh/ssh_host_ed25519_key\n"


def test_the_clock_is_right(sandbox: Running) -> None:
    """Within a minute: certificates and make depend on it."""
    before = sandbox.host.call(["date", "+%s"]).out
    guest = sandbox.sh("date +%s; date +%Z").out.split()
    assert abs(int(guest[0]) - int(before)) < 60


@pytest.fixture(scope="module")
def sources(sandbox: Running) -> str:
    """What the guest's apt is told to use."""
    return sandbox.sh("cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true").out


def test_names_resolve_and_apt_works(sandbox: Running, sources: str) -> None:
    """Through QEMU's network, with the mirror that the image was built from."""
    found = re.search(r"https?://([^/:\s]+)", sources)
    assert found, sources
    done = sandbox.sh(
        f"getent ahosts {found[1]} >/dev/null && echo resolved;"
        " sudo -n apt-get update -qq -o APT::Update::Error-Mode=any 2>&1 && echo updated;"
        " apt-cache policy hello | grep -c Candidate",
        check=False,
    )
    assert done.out == "resolved\nupdated\n1\n"
