"""Whatever is killed, and whenever: the next command finds it, goes on with it, or clears it away.

Two boots in all; starts from a template are in test_warm_crash.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.host import locks, names, process
from tests.vm.conftest import MakeHost
from tests.vm.host import Done, Host, wait_for
from tests.vm.scene import (
    NAME,
    Gates,
    Scene,
    assert_nothing_left,
    end,
    gated,
    kill,
    outcome,
    processes_of,
)


@pytest.fixture(scope="module")
def scene(make_host: MakeHost) -> Iterator[Scene]:
    """A user with gates before the programs that a start runs."""
    host = make_host("crash")
    with gated(host, host.workspace("crash"), NAME) as scene:
        yield scene


# One boot, in which the supervisor dies six times. The tests below run in this order.


@pytest.fixture(scope="module")
def survivor(scene: Scene) -> dict[str, Any]:
    """A sandbox whose every supervisor was killed on the way up."""
    host, gates = scene.host, scene.gates

    gates.close("qemu-img")
    starter = scene.start()
    gates.wait("qemu-img")
    assert scene.phase() == "disk"
    end(starter)
    scene.kill_supervisor()
    gates.clear("qemu-img")
    lost = host.json("status", NAME, check=False)
    assert lost["state"] == "lost"
    assert lost["failure"]["hint"]

    # From here on the command itself goes on with the next supervisor.
    gates.close("ssh-keygen")
    starter = scene.start()
    gates.wait("ssh-keygen")
    assert scene.phase() == "identity"
    gates.close("bwrap")
    scene.kill_supervisor()
    gates.clear("ssh-keygen")
    gates.wait("bwrap")
    assert scene.phase() == "qemu"
    assert locks.is_held(host.home_of(NAME).vm_lock)
    scene.kill_supervisor()
    gates.clear("bwrap")

    scene.wait_for_phase("kernel")
    qemu = host.qemu_pid(NAME)
    end(starter)
    scene.kill_supervisor()
    assert host.qemu_pid(NAME) == qemu

    gates.close("ssh")
    starter = scene.start()
    scene.wait_for_phase("boot", "login")
    scene.kill_supervisor()
    gates.wait("ssh")
    assert scene.phase() == "login"
    scene.kill_supervisor()
    gates.clear("ssh")
    done = outcome(starter)
    assert done.status == 0, done.err
    assert host.qemu_pid(NAME) == qemu
    value: dict[str, Any] = json.loads(done.out)
    return value


def test_start_outlives_its_supervisors(scene: Scene, survivor: dict[str, Any]) -> None:
    """Killed in disk, identity, qemu, kernel, boot and login; the guest was booted once."""
    assert survivor["state"] == "running"
    assert survivor["pid"] == scene.host.qemu_pid(NAME)
    assert survivor["workspace"] == str(scene.workspace)
    done = scene.host.run("exec", NAME, "--", "sh", "-c", "touch made; hostname; pwd")
    assert done.out.split() == [NAME, "/home/dev/workspace"]
    assert (scene.workspace / "made").exists()


def test_secrets_do_not_outlive_the_start(scene: Scene, survivor: dict[str, Any]) -> None:
    """Whoever adopts a start removes what its predecessor would have removed."""
    left = [path.name for path in scene.host.room_of(NAME).qemu.iterdir()]
    assert not [name for name in left if name.startswith("credential")]
    assert (scene.host.room_of(NAME).qemu_pid).read_text() == f"{survivor['pid']}\n"


def test_machine_without_supervisor_is_adopted(scene: Scene, survivor: dict[str, Any]) -> None:
    """It runs, ssh works, and of two commands at once one brings the next supervisor."""
    host = scene.host
    scene.kill_supervisor()
    assert host.ssh(NAME, "echo alive").out == "alive\n"
    assert not locks.is_held(host.home_of(NAME).supervisor_lock)
    one, two = scene.begin("status", NAME, "--json"), scene.begin("exec", NAME, "--", "echo", "x")
    done = outcome(one)
    assert json.loads(done.out)["state"] == "running"
    assert outcome(two).out == "x\n"
    assert locks.holders(host.home_of(NAME).supervisor_lock) == [scene.supervisor()]
    assert scene.state()["pid"] == survivor["pid"]
    console = host.room_of(NAME).console_socket
    assert console.is_socket()


def test_death_of_the_boxs_monitor(scene: Scene, survivor: dict[str, Any]) -> None:
    """Bubblewrap's outer process is nobody's life line."""
    host = scene.host
    qemu = host.qemu_pid(NAME)
    monitor = int(Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()[1])
    if Path(f"/proc/{monitor}/comm").read_text() == "bwrap\n":
        kill(monitor)
    assert host.ssh(NAME, "echo alive").out == "alive\n"
    assert host.qemu_pid(NAME) == qemu
    assert host.json("status", NAME)["state"] == "running"


def test_stop_whose_supervisor_dies(scene: Scene, survivor: dict[str, Any]) -> None:
    """The next stop finishes it; with its command dead too."""
    stopping = scene.begin("stop", NAME)
    wait_for(lambda: scene.state().get("state") == "stopping", "the stop")
    end(stopping)
    scene.kill_supervisor()
    scene.host.run("stop", NAME)
    assert_nothing_left(scene.host)
    log = scene.host.home_of(NAME).supervisor_log.read_text()
    assert "Traceback" not in log
    assert "InvalidStateError" not in log


# The second boot.


def interrupt(child: subprocess.Popen[bytes]) -> Done:
    """Ctrl-C."""
    child.send_signal(signal.SIGINT)
    return outcome(child)


def test_interrupt_of_the_only_starter(scene: Scene) -> None:
    """In the first moment and in the middle of a boot: nothing is left of it."""
    scene.gates.close("qemu-img")
    starter = scene.start()
    scene.gates.wait("qemu-img")
    assert interrupt(starter).status == 130
    scene.gates.clear("qemu-img")
    assert_nothing_left(scene.host)

    starter = scene.start()
    scene.wait_for_phase("kernel")
    done = interrupt(starter)
    assert done.status == 130
    assert "Traceback" not in done.err
    assert_nothing_left(scene.host)


@pytest.fixture(scope="module")
def second(scene: Scene) -> dict[str, Any]:
    """Started by two, of whom one was interrupted, while another program had its port."""
    port = names.read(scene.host.layout, NAME).last_port
    assert port is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        one, two = scene.start(), scene.start()
        scene.wait_for_phase("kernel")
        assert interrupt(one).status == 130
        done = outcome(two)
    assert done.status == 0, done.err
    value: dict[str, Any] = json.loads(done.out)
    assert value["ssh"]["port"] != port
    return value


def test_interrupt_of_one_of_two(scene: Scene, second: dict[str, Any]) -> None:
    """The other gets its machine; on another port, where the last one is taken."""
    assert second["state"] == "running"
    assert scene.host.ssh(NAME, "echo alive").out == "alive\n"
    assert names.read(scene.host.layout, NAME).last_port == second["ssh"]["port"]


def test_death_of_qemu(scene: Scene, second: dict[str, Any]) -> None:
    """Lost, with a reason and the logs; the supervisor has ended, the next start begins anew."""
    host = scene.host
    kill(host.qemu_pid(NAME))
    wait_for(lambda: scene.state().get("state") == "lost", "the loss")
    done = host.run("status", NAME, "--json", check=False)
    value = json.loads(done.out)
    assert value["failure"]["kind"] == "qemuFailed"
    last = host.home_of(NAME).last
    assert str(last) in value["failure"]["hint"]
    assert {"console.log", "qemu.log"} <= {path.name for path in last.iterdir()}
    assert (last / "console.log").stat().st_size > 0
    wait_for(lambda: not processes_of(host), "the supervisor's end")
    assert host.run("exec", NAME, "--", "true", check=False).status == 11


def test_death_of_both(scene: Scene, second: dict[str, Any]) -> None:
    """Nobody is there to note it; `status` knows all the same, and the next start works."""
    starter = scene.start()
    scene.wait_for_phase("kernel")
    end(starter)
    scene.kill_supervisor()
    kill(scene.host.qemu_pid(NAME))
    value = scene.host.json("status", NAME, check=False)
    assert value["state"] == "lost"
    assert "supervisor" in value["failure"]["message"]


def test_stop_during_a_start(scene: Scene, second: dict[str, Any]) -> None:
    """It wins, and the one who waited for the start is told."""
    starter = scene.start()
    scene.wait_for_phase("kernel")
    scene.host.run("stop", NAME)
    done = outcome(starter)
    assert done.status == 11
    assert "was stopped while it was starting" in done.err
    assert_nothing_left(scene.host)


# Builds.


@pytest.fixture
def builder(make_host: MakeHost, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A user without an image, whose mmdebstrap stands at a gate and then makes next to nothing."""
    host = make_host(f"build-{request.node.name}"[:40].replace("[", "-").replace("]", ""))
    (host.base / "kvm-cache").unlink()
    folder = host.folder / "gates"
    folder.mkdir()
    gates = Gates(folder)
    for tool in ("tar", "rm"):
        gates.make(tool)
    fake = folder / "real-mmdebstrap"
    fake.write_text(
        "#!/bin/sh\n"
        'for word; do case $word in */tree) mkdir -p "$word/boot"; exit;; esac; done\n'
        "exec tar -c --files-from /dev/null\n"
    )
    fake.chmod(0o755)
    host.extra["PATH"] = f"{folder}:{os.environ['PATH']}"
    mmdebstrap = folder / "mmdebstrap"
    gates.make("mmdebstrap")
    mmdebstrap.write_text(
        mmdebstrap.read_text().replace(f'"{shutil.which("mmdebstrap")}"', f'"{fake}"')
    )
    scene = Scene(host, gates, host.folder)
    yield scene
    for closed in folder.glob("*.closed"):
        gates.clear(closed.stem)
    for child in scene.children:
        if child.poll() is None:
            end(child)


def staged(host: Host) -> list[str]:
    return [path.name for path in host.layout.staging.iterdir()]


def assert_no_image(host: Host) -> None:
    """Not even half of one."""
    assert list(host.layout.images.iterdir()) == []
    assert host.json("image", "list") == []


def assert_next_build_sweeps(scene: Scene) -> None:
    """Another build, which fails for want of a kernel, leaves an empty staging folder."""
    done = scene.host.run("image", "build", check=False)
    assert done.status == 12
    assert "kernel" in done.err
    assert staged(scene.host) == []
    assert_no_image(scene.host)


def at_gate(scene: Scene, tool: str) -> subprocess.Popen[bytes]:
    """A build that has come to a gate."""
    scene.gates.close(tool)
    child = scene.begin("image", "build")
    scene.gates.wait(tool)
    return child


@pytest.mark.parametrize("tool", ["mmdebstrap", "tar"])
def test_killed_builder(builder: Scene, tool: str) -> None:
    """Its folder stays as long as a tool of it runs; then the next build clears it away."""
    child = at_gate(builder, tool)
    end(child)
    assert_no_image(builder.host)
    (left,) = staged(builder.host)
    lock = builder.host.layout.staging / left / "lock"
    builder.gates.clear(tool)
    wait_for(lambda: not locks.is_held(lock), "the end of its tool")
    assert_next_build_sweeps(builder)


def test_builder_killed_while_cleaning_up(builder: Scene) -> None:
    """Ctrl-C, and kill -9 before that is done."""
    child = at_gate(builder, "mmdebstrap")
    builder.gates.close("rm")
    child.send_signal(signal.SIGINT)
    builder.gates.wait("rm")
    end(child)
    assert len(staged(builder.host)) == 1
    builder.gates.clear("rm")
    builder.gates.clear("mmdebstrap")
    assert_next_build_sweeps(builder)


@pytest.mark.parametrize("tool", ["mmdebstrap", "tar"])
def test_interrupted_builder(builder: Scene, tool: str) -> None:
    """Ctrl-C ends the tool and removes everything, at once."""
    child = at_gate(builder, tool)
    (pid,) = builder.gates.waiting(tool)
    done = interrupt(child)
    assert done.status == 130
    assert "Traceback" not in done.err
    assert process.identify(pid) is None
    assert staged(builder.host) == []
    assert_no_image(builder.host)
    assert processes_of(builder.host) == {}
