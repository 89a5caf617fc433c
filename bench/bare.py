"""QEMU without this program: a shell script that boots it, or restores it, and logs in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.qemu import capabilities, command
from sandbox_rpc.qemu.box import SECCOMP
from sandbox_rpc.qemu.machine import (
    WORKSPACE_TAG,
    Accelerator,
    Disk,
    Forward,
    Machine,
    Recorded,
    Restored,
    Share,
    UserNetwork,
)
from sandbox_rpc.ssh import keys

LIMIT_S = 300
MEMORY_MIB = 2048
DISK_MIB = 20480
REST_S = 10
"""For a guest that becomes a template to come to rest after its first login."""

BOOT = """\
set -eu
qemu-img create -q -f qcow2 -F qcow2 -b {base} overlay.qcow2 {disk_mib}M
{qemu} </dev/null >qemu.log 2>&1 &
echo $! >pid
tries=0
until ssh -F ssh_config bare true 2>>ssh.log; do
    tries=$((tries + 1))
    [ $tries -lt 1000 ] || exit 1
    kill -0 $(cat pid)
    sleep {pause}
done
"""

RESTORE = """\
set -eu
cp blank.qcow2 overlay.qcow2
cat >monitor <<END
migrate_set_capability x-ignore-shared on
migrate_incoming fd:9
END
{qemu} -monitor stdio 9<state <monitor >qemu.log 2>&1 &
echo $! >pid
sleep 0.15
until ssh -F ssh_config bare true 2>>ssh.log; do
    kill -0 $(cat pid)
done
"""
"""QEMU before 8 has no property for the capability, so its monitor is told. A connection that comes
before the guest runs again is tried again by QEMU's network after seconds, hence the pause: it is
what a restore takes."""

SSH_CONFIG = """\
Host bare
    HostName 127.0.0.1
    Port {port}
    User dev
    IdentityFile {folder}/client
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    HostKeyAlias bare
    BatchMode yes
    LogLevel ERROR
"""


class Bare:
    """One folder with keys, an identity and the options of a machine."""

    def __init__(
        self, layout: Layout, image: StoredImage, accelerator: str, workspace: Path
    ) -> None:
        self.qemu = capabilities.find_qemu("", layout.qemu_probe)
        self.image = image
        self.folder = Path(tempfile.mkdtemp(prefix="bare.", dir=layout.base))
        identity = anyio.run(prepare, self.folder)
        files = []
        for name, value in guest.credentials(identity).items():
            (self.folder / f"credential.{name}").write_bytes(guest.smbios(name, value))
            files.append(f"credential.{name}")
        port = free_port()
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(port=port, folder=self.folder))
        self.machine = Machine(
            name="bare", uuid="00000000-0000-4000-8000-000000000000",
            arch=self.qemu.arch, machine_type=self.qemu.machine_type,
            accelerator=Accelerator(accelerator), memory_mib=MEMORY_MIB, cpus=2,
            kernel=str(image.kernel), initrd=str(image.initrd),
            kernel_command_line=image.kernel_command_line,
            disk=Disk(overlay="overlay.qcow2", base=str(image.disk)),
            shares=(Share(WORKSPACE_TAG, str(workspace), "none"),),
            network=UserNetwork((Forward(image.ssh_port, port),)),
            qmp=1001, agent=1002, serial=1003, console_log="console.log",
            credential_files=tuple(files), seccomp=SECCOMP,
        )  # fmt: skip

    def argv(self, machine: Machine) -> list[str]:
        """Sockets that QEMU makes itself, where ours inherits them; all else is the same."""
        return [
            re.sub(r"\bid=(\w+),fd=\d+", r"id=\1,path=\1.sock", word)
            for word in command.argv(self.qemu.path, machine)
        ]

    def run(self, script: str) -> float:
        """Seconds from the start of a script to its end, a successful login."""
        began = time.monotonic()
        try:
            subprocess.run(
                ["sh", "-c", script],
                cwd=self.folder, stdin=subprocess.DEVNULL, check=True, timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.SubprocessError:
            for name in ("qemu.log", "ssh.log"):
                log = self.folder / name
                if log.exists():
                    print(f"{name}: {log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise
        return time.monotonic() - began

    def end(self) -> None:
        """Kill QEMU, where it runs."""
        pid = self.folder / "pid"
        if pid.exists():
            with suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()

    def boot(self, machine: Machine, pause: float) -> float:
        """Boot until a login succeeds, asking again and again."""
        return self.run(
            BOOT.format(
                base=shlex.quote(str(self.image.disk)), disk_mib=DISK_MIB,
                qemu=shlex.join(self.argv(machine)), pause=pause,
            )
        )  # fmt: skip

    def save(self) -> None:
        """Boot without a mounted workspace, log in once, let it rest, and save the machine."""
        machine = attrs.evolve(self.machine, memory=Recorded(str(self.folder / "memory")))
        with (self.folder / "memory").open("wb") as file:
            file.truncate(MEMORY_MIB << 20)
        size = f"{DISK_MIB}M"
        blank = ["qemu-img", "create", "-q", "-f", "qcow2", "blank.qcow2", size]
        subprocess.run(blank, cwd=self.folder, check=True)
        self.boot(machine, 0.2)
        try:
            ssh = ["ssh", "-F", "ssh_config", "bare", "sudo umount /home/dev/workspace; sync"]
            subprocess.run(ssh, cwd=self.folder, check=True, capture_output=True)
            time.sleep(REST_S)
            self.migrate()
        finally:
            self.end()
        (self.folder / "overlay.qcow2").rename(self.folder / "disk.qcow2")

    def migrate(self) -> None:
        """While it runs, so that it goes on by itself where it is restored."""
        with socket.socket(socket.AF_UNIX) as monitor, (self.folder / "state").open("wb") as state:
            monitor.connect(os.path.relpath(self.folder / "qmp.sock"))
            lines = monitor.makefile("r")

            def ask(name: str, *fds: int, **arguments: Any) -> Any:
                line = json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"
                socket.send_fds(monitor, [line], list(fds))
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise RuntimeError(f"{name}: {answer['error']}")
                return answer["return"]

            lines.readline()
            ask("qmp_capabilities")
            wish = {"capability": "x-ignore-shared", "state": True}
            ask("migrate-set-capabilities", capabilities=[wish])
            ask("getfd", state.fileno(), fdname="state")
            ask("migrate", uri="fd:state")
            while (found := ask("query-migrate"))["status"] != "completed":
                if found["status"] == "failed":
                    raise RuntimeError(found)
                time.sleep(0.01)

    def restore(self) -> float:
        """Restore what was saved, and log in once."""
        machine = attrs.evolve(
            self.machine,
            memory=Restored(str(self.folder / "memory"), self.qemu.seals_memory),
            disk=attrs.evolve(self.machine.disk, template=str(self.folder / "disk.qcow2")),
        )
        try:
            return self.run(RESTORE.format(qemu=shlex.join(self.argv(machine))))
        finally:
            self.end()


@contextmanager
def bare(layout: Layout, image: StoredImage, accelerator: str, workspace: Path) -> Iterator[Bare]:
    """A bare machine, gone at the end."""
    one = Bare(layout, image, accelerator, workspace)
    try:
        yield one
    finally:
        one.end()
        shutil.rmtree(one.folder)


async def prepare(folder: Path) -> Identity:
    """Keys and an identity as a start makes them; not part of what is measured."""
    host = await keys.make_pair("bare", folder)
    client = await keys.make_pair("bare", folder)
    (folder / "client").write_text(client.private)
    (folder / "client").chmod(0o600)
    (folder / "known_hosts").write_text(f"bare {' '.join(host.public.split()[:2])}\n")
    return Identity(
        hostname="bare", machine_id="0123456789abcdef" * 2,
        authorized_keys=(client.public,), host_key=host.private,
        environment={"SANDBOX_CONTAINER": "bare"},
    )  # fmt: skip


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
