"""A kernel that panics while it boots: once it may be QEMU's fault, twice it is not.

A program in QEMU's place has the kernel run a script before the initrd's own, which leaves a mark
in the CMOS memory, where a reset does not reach, and ends: no kernel goes on without its first
process.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_rpc.qemu.capabilities import find_qemu, probe_kvm
from sandbox_rpc.supervisor.hear import MENDED
from tests.vm.conftest import MakeHost
from tests.vm.host import Host, wait_for

NAME = "sandbox-panics"
PANIC = "Attempted to kill init"
ONCE = r"$b dd if=/dev/port bs=1 skip=113 count=1 | $b grep -q X && exec /init"
ALWAYS = "true"
SCRIPT = r"""
b=/bin/busybox; $b mount -t devtmpfs d /dev; printf '\120' | $b dd of=/dev/port bs=1 seek=112;
{ONCE}; printf '\120X' | $b dd of=/dev/port bs=2 seek=56
"""
QEMU = """#!{python}
import os, sys
words = [{qemu!r}, *sys.argv[1:]]
if "-append" in words:
    words[words.index("-append") + 1] += {more!r}
os.execv(words[0], words)
"""


@pytest.fixture(scope="module")
def host(make_host: MakeHost) -> Host:
    """A user with a QEMU of their own."""
    return make_host("panics")


@pytest.fixture
def workspace(host: Host) -> Iterator[Path]:
    """A folder, whose sandbox ends with the test."""
    made = host.workspace("panics")
    yield made
    host.run("stop", "--force", NAME, check=False)
    shutil.rmtree(made)


def start(host: Host, workspace: Path, once: str) -> tuple[int, str, int]:
    """The status of a start, what it said, and how often its kernel panicked."""
    found = shutil.which("qemu-system-x86_64")
    assert found
    script = " ".join(SCRIPT.replace("{ONCE}", once).split("\n"))
    program = host.folder / "qemu"
    more = f' rdinit=/bin/busybox -- sh -c "{script.strip()}"'
    program.write_text(QEMU.format(python=sys.executable, qemu=found, more=more))
    program.chmod(0o755)
    # The box would not show it.
    words = ("--qemu", str(program), "--box-namespace", "off", "--warm", "never")
    done = host.run("start", str(workspace), *words, check=False)
    room, last = host.room_of(NAME), host.home_of(NAME).last
    log = room.console_log if done.status == 0 else last / room.console_log.name
    return done.status, done.err, log.read_text(errors="replace").count(PANIC)


def may_be_qemus_fault(cache: Path) -> bool:
    """Whether such a panic is forgiven here."""
    return not probe_kvm().usable and find_qemu("", cache).version < MENDED


def test_one_is_forgiven_where_it_may_be_qemus_fault(host: Host, workspace: Path) -> None:
    status, said, panics = start(host, workspace, ONCE)
    assert panics == 1
    if not may_be_qemus_fault(host.folder / "qemu.json"):
        assert status != 0
        assert "guest-reset" in said
        return
    assert status == 0, said
    assert said.count("may be QEMU's fault; booting it again") == 1
    # Later on it is the end, as everywhere: whoever works there must learn of it.
    host.sh(
        NAME, "sudo sh -c '(sleep 1; echo b > /proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &'"
    )
    wait_for(lambda: _state(host) != "running", "its end")


def _state(host: Host) -> str:
    return str(host.json("status", NAME, "--json", check=False)["state"])


def test_a_second_one_is_not(host: Host, workspace: Path) -> None:
    status, said, panics = start(host, workspace, ALWAYS)
    assert status != 0
    assert "QEMU ended while the guest was starting (guest-reset)" in said
    assert panics == (2 if may_be_qemus_fault(host.folder / "qemu.json") else 1)
