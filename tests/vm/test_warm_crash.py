"""Templates and starts from them, interrupted and killed: none or a whole one, and nothing left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.host import locks, process
from sandbox_rpc.images.staging import LOCK
from sandbox_rpc.qemu import store
from tests.vm.conftest import MakeHost
from tests.vm.host import Host, wait_for
from tests.vm.scene import Scene, assert_nothing_left, end, gated, kill, outcome

NAME = "sandbox-clone"
SIZE = ("--memory", "640M")


@pytest.fixture(scope="module")
def scene(make_host: MakeHost) -> Iterator[Scene]:
    """A user whose template is there."""
    host = make_host("warm-crash", own_templates=True)
    host.run("template", "build")
    with gated(host, host.workspace("clone"), NAME) as scene:
        yield scene
    host.run("stop", NAME, "--force", check=False)


def start(scene: Scene, *words: str) -> Any:
    """A start from a template, beside the test."""
    return scene.begin("start", str(scene.workspace), "--json", *words)


def interrupted(child: Any) -> None:
    """By Ctrl-C, in order."""
    child.send_signal(signal.SIGINT)
    done = outcome(child)
    assert done.status == 130
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("tool", "phase"), [("ssh-keygen", "restore"), ("ssh", "login")])
def test_an_interrupted_start_leaves_nothing(scene: Scene, tool: str, phase: str) -> None:
    """While the state is loaded, and when the guest has its identity already."""
    templates = store.keys(scene.host.layout)
    scene.gates.close(tool)
    starter = start(scene)
    scene.gates.wait(tool)
    scene.wait_for_phase(phase)
    interrupted(starter)
    scene.gates.clear(tool)
    assert_nothing_left(scene.host, NAME)
    assert store.keys(scene.host.layout) == templates


def test_a_start_whose_supervisor_dies_before_the_identity_begins_anew(scene: Scene) -> None:
    """What the guest was to become was known to nobody else."""
    scene.gates.close("ssh-keygen")
    starter = start(scene)
    scene.gates.wait("ssh-keygen")
    scene.wait_for_phase("restore")
    qemu = scene.host.qemu_pid(NAME)
    scene.kill_supervisor()
    scene.gates.clear("ssh-keygen")
    done = outcome(starter)
    assert done.status == 0, done.err
    value = json.loads(done.out)
    assert value["startup"]["kind"] == "warm"
    assert value["pid"] == scene.host.qemu_pid(NAME) != qemu
    assert scene.host.sh(NAME, "hostname").out == f"{NAME}\n"
    scene.host.run("stop", NAME, "--force")
    assert_nothing_left(scene.host, NAME)


def test_a_start_whose_supervisor_dies_at_the_login_goes_on(scene: Scene) -> None:
    """With the guest that is there, by the host key it was given."""
    scene.gates.close("ssh")
    starter = start(scene)
    scene.gates.wait("ssh")
    scene.wait_for_phase("login")
    home = scene.host.home_of(NAME)
    wait_for(lambda: "Port" in home.ssh_config.read_text(), "the endpoint")
    qemu, known = scene.host.qemu_pid(NAME), home.known_hosts.read_text()
    scene.kill_supervisor()
    scene.gates.clear("ssh")
    done = outcome(starter)
    assert done.status == 0, done.err
    value = json.loads(done.out)
    assert value["startup"]["kind"] == "warm"
    assert value["pid"] == scene.host.qemu_pid(NAME) == qemu
    assert home.known_hosts.read_text() == known
    scene.host.run("stop", NAME, "--force")


def makers(host: Host) -> list[int]:
    """The machines of templates in the making."""
    found: list[int] = []
    for folder in host.layout.staging.iterdir():
        if (folder / "maker").exists():
            found += locks.holders(folder / LOCK)
    return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]


def of_size(host: Host, memory_mib: int) -> list[store.Template]:
    """The templates for guests of that size."""
    every = store.every(host.layout)
    return [one for one in every if one.facts.origin.memory_mib == memory_mib]


def test_interrupted_and_killed_makers_leave_nothing_and_the_next_one_makes_it(
    scene: Scene,
) -> None:
    """A command by Ctrl-C, a command by kill -9, a supervisor by kill -9; then it is whole."""
    host = scene.host
    builder = scene.begin("template", "build", *SIZE)
    (qemu,) = wait_for(lambda: makers(host), "the machine", seconds=60)
    interrupted(builder)
    assert process.identify(qemu) is None
    assert makers(host) == []
    assert [path for path in host.layout.staging.iterdir() if (path / "maker").exists()] == []

    builder = scene.begin("template", "build", *SIZE)
    (qemu,) = wait_for(lambda: makers(host), "the machine", seconds=60)
    end(builder)
    # In its box it ends with its maker; where it could not be tied, the next one would end it.
    wait_for(lambda: not alive(qemu), "the machine's end")
    assert of_size(host, 640) == []

    starter = start(scene, *SIZE)
    (qemu,) = wait_for(lambda: makers(host), "the machine", seconds=60)
    assert scene.phase() == "template"
    supervisor = scene.supervisor()
    kill(supervisor)
    done = outcome(starter)
    assert done.status == 0, done.err
    assert not alive(qemu)
    value = json.loads(done.out)
    assert value["startup"]["kind"] == "warm"
    assert len(of_size(host, 640)) == 1
    assert [path for path in host.layout.staging.iterdir() if (path / "maker").exists()] == []
    host.run("stop", NAME, "--force")
    for one in of_size(host, 640):
        host.run("template", "remove", one.key)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    found = process.identify(pid)
    return found is not None and found.is_alive()


def test_a_full_disk_while_making_leaves_no_template(make_host: MakeHost) -> None:
    """The guest's memory is a file that cannot grow: the maker's QEMU dies, the start goes on."""
    host = make_host("warm-full", own_templates=True)
    staging = host.base / "kvm-cache" / "staging"
    staging.mkdir(mode=0o700)
    if os.geteuid() == 0:
        script = 'mount -t tmpfs -o size=60m none "$1" && shift && exec "$@"'
        host.prefix = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
            str(staging),
        ]  # fmt: skip
    else:
        script = 'ulimit -f 61440; exec "$@"'
        host.prefix = ["sh", "-c", script, "sh"]
    value = host.start(host.workspace("full"))
    try:
        assert value["startup"]["kind"] == "cold"
        assert "making a template has failed" in value["startup"]["reason"]
        assert host.json("template", "list") == []
    finally:
        host.run("stop", value["name"], "--force")
