"""A start in slow motion: held by gates, looked at by its state file, killed at will.

A *gate* holds a start in a phase: a program of the same name, first on PATH, that waits while its
gate is closed. So every kill hits the phase it is meant for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from sandbox_rpc.host import locks, process
from tests.vm.host import Done, Host, wait_for

NAME = "sandbox-crash"
PHASE_LIMIT_S = 120


@frozen
class Gates:
    """Programs that wait."""

    folder: Path

    def make(self, tool: str) -> None:
        """Put a gate before a program."""
        real = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
        script = self.folder / tool
        script.write_text(
            "#!/bin/sh\n"
            f'if [ -e "{self.folder}/{tool}.closed" ]; then\n'
            f'    echo $$ >> "{self.folder}/{tool}.at"\n'
            f'    while [ -e "{self.folder}/{tool}.closed" ]; do sleep 0.05; done\n'
            f'fi\nexec "{real}" "$@"\n'
        )
        script.chmod(0o755)

    def close(self, tool: str) -> None:
        """From now on the program waits."""
        (self.folder / f"{tool}.at").unlink(missing_ok=True)
        (self.folder / f"{tool}.closed").touch()

    def wait(self, tool: str) -> None:
        """Until a program stands at its gate."""
        wait_for(lambda: self.waiting(tool), f"{tool} at its gate", seconds=PHASE_LIMIT_S)

    def waiting(self, tool: str) -> list[int]:
        """Who stands there."""
        path = self.folder / f"{tool}.at"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def clear(self, tool: str) -> None:
        """Kill who stands there, and open."""
        for pid in self.waiting(tool):
            kill(pid)
        (self.folder / f"{tool}.closed").unlink()


@define
class Scene:
    """A user, a sandbox, and the commands that run."""

    host: Host
    gates: Gates
    workspace: Path
    name: str = NAME
    children: list[subprocess.Popen[bytes]] = field(factory=list)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Run `sandbox WORDS` beside the test."""
        child = self.host.popen([*self.host.program, *words])
        self.children.append(child)
        return child

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A start, which boots a kernel unless `words` say otherwise."""
        return self.begin("start", str(self.workspace), "--json", "--warm", "never", *words)

    def phase(self) -> str | None:
        """What the start is at, as the state file says."""
        return str(self.state().get("phase"))

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.host.room_of(self.name).state.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def wait_for_phase(self, *wanted: str) -> None:
        """Until QEMU runs and its start is there; the files of a dead one do not count."""
        lock = self.host.home_of(self.name).vm_lock

        def reached() -> bool:
            state = self.state()
            return state.get("phase") in wanted and state.get("pid") in locks.holders(lock)

        wait_for(reached, f"phase {wanted}", seconds=PHASE_LIMIT_S, pause=0.005)

    def supervisor(self) -> int:
        return self.host.supervisor_pid(self.name)

    def kill_supervisor(self) -> None:
        kill(self.supervisor())


def kill(pid: int) -> None:
    """kill -9, and wait for the end."""
    found = process.identify(pid)
    if found is not None:
        found.kill()
        wait_for(lambda: not found.is_alive(), f"the end of process {pid}")


def end(child: subprocess.Popen[bytes]) -> None:
    """kill -9 a command of ours."""
    child.kill()
    child.communicate()


def outcome(child: subprocess.Popen[bytes], *, timeout: float = 400) -> Done:
    """A command's end."""
    out, err = child.communicate(timeout=timeout)
    return Done(child.returncode, out.decode(), err.decode(), out)


def processes_of(host: Host) -> dict[int, str]:
    """Everything that was started for this user's cache and still runs."""
    mark = os.fsencode(host.base)
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
                if mark in words or mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # gone meanwhile
    return found


def assert_nothing_left(host: Host, name: str = NAME) -> None:
    """No process, no lock, no socket, no room."""
    home, room = host.home_of(name), host.room_of(name)
    wait_for(lambda: not processes_of(host), f"the end of {processes_of(host)}")
    # A process that ends loses its memory, by which we know it, before its locks.
    both = (home.vm_lock, home.supervisor_lock)
    wait_for(lambda: not any(map(locks.is_held, both)), "the release of its locks")
    assert not home.supervisor_socket.exists()
    assert not room.folder.exists()
    endpoint = home.ssh_config.read_text()
    assert "Port" not in endpoint.replace("ForwardX11", "")


@contextmanager
def gated(host: Host, workspace: Path, name: str) -> Iterator[Scene]:
    """A user with gates before the programs that a start runs."""
    folder = host.folder / "gates"
    folder.mkdir(exist_ok=True)
    gates = Gates(folder)
    for tool in ("qemu-img", "ssh-keygen", "bwrap", "ssh"):
        gates.make(tool)
    host.extra["PATH"] = f"{folder}:{os.environ['PATH']}"
    scene = Scene(host, gates, workspace, name)
    try:
        yield scene
    finally:
        for closed in folder.glob("*.closed"):
            gates.clear(closed.stem)
        for child in scene.children:
            if child.poll() is None:
                end(child)
