#!/usr/bin/env python3
"""A cold start, from the request to a proven login, against QEMU without this program.

.venv/bin/python bench/start.py [--rounds N] [--accelerator auto|kvm|tcg]

Four ways in interleaved rounds, so that whatever else the machine does meets them all:

    ours         `sandbox start FOLDER`, until it returns
    bare         a shell script: qemu-img, QEMU with the same options and files and no box, and ssh
                 again and again until `true` has run; keys and credentials are made beforehand
    plain        `sandbox start --image local/debian-13:plain`: Debian's own initrd and units
    plain, bare  the same with the script, asking once a second as the seed did

Both images come from one tree of packages; they are built where the cache has none (minutes).
Nothing of it touches the user's own sandboxes: SANDBOX_BENCH_CACHE names the cache base, by default
a folder below /var/tmp that is kept for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import report

from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build, recipe, reference, store
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import ImageNotFound
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.qemu import capabilities, command
from sandbox_rpc.qemu.box import SECCOMP
from sandbox_rpc.qemu.machine import WORKSPACE_TAG, Disk, Forward, Machine, Share, UserNetwork
from sandbox_rpc.ssh import keys

SANDBOX = Path(sys.executable).parent / "sandbox"
LIMIT_S = 300
PLAIN = "local/debian-13:plain"

SCRIPT = """\
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
    ConnectTimeout 5
    LogLevel ERROR
"""


def images(layout: Layout) -> tuple[StoredImage, StoredImage]:
    """The trimmed and the plain image, from one tree."""
    try:
        return store.resolve(layout, reference.BUILT), store.resolve(layout, PLAIN)
    except ImageNotFound:
        pass

    def show(progress: Progress) -> None:
        sys.stderr.write(f"\r\x1b[K{progress.percentage}% {progress.message}")

    async def make() -> dict[str, StoredImage]:
        wanted: Mapping[str, recipe.Variant] = {
            reference.BUILT: recipe.TRIM,
            PLAIN: recipe.STOCK,
        }
        return await build.build_variants(layout, wanted, show)

    made = anyio.run(make)
    sys.stderr.write("\n")
    return made[reference.BUILT], made[PLAIN]


def ours(environment: Mapping[str, str], folder: Path, *words: str) -> tuple[float, str]:
    """Seconds of a `sandbox start`, and the accelerator it took."""
    began = time.monotonic()
    done = subprocess.run(
        [SANDBOX, "start", folder, "--json", "--quiet", *words],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    seconds = time.monotonic() - began
    value = json.loads(done.stdout)
    subprocess.run(
        [SANDBOX, "stop", "--force", value["name"]],
        env=environment, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return seconds, value["accelerator"]


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


def bare(
    layout: Layout, image: StoredImage, accelerator: str, workspace: Path, *, pause: float
) -> float:
    """Seconds from the start of a shell script to its first successful login."""
    qemu = capabilities.find_qemu("", layout.qemu_probe)
    folder = Path(tempfile.mkdtemp(prefix="bare.", dir=layout.base))
    try:
        identity = anyio.run(prepare, folder)
        files = []
        for name, value in guest.credentials(identity).items():
            (folder / f"credential.{name}").write_bytes(guest.smbios(name, value))
            files.append(f"credential.{name}")
        port = free_port()
        machine = Machine(
            name="bare", uuid="00000000-0000-4000-8000-000000000000",
            arch=qemu.arch, machine_type=qemu.machine_type,
            accelerator=command.Accelerator(accelerator), memory_mib=2048, cpus=2,
            kernel=str(image.kernel), initrd=str(image.initrd),
            kernel_command_line=image.kernel_command_line,
            disk=Disk(overlay="overlay.qcow2", base=str(image.disk)),
            shares=(Share(WORKSPACE_TAG, str(workspace), "none"),),
            network=UserNetwork((Forward(image.ssh_port, port),)),
            qmp=1001, agent=1002, serial=1003, console_log="console.log",
            credential_files=tuple(files), seccomp=SECCOMP,
        )  # fmt: skip
        # Sockets that QEMU makes itself, where ours inherits them; all else is the same.
        argv = [
            re.sub(r"\bid=(\w+),fd=\d+", r"id=\1,path=\1.sock", word)
            for word in command.argv(qemu.path, machine)
        ]
        (folder / "ssh_config").write_text(SSH_CONFIG.format(port=port, folder=folder))
        script = SCRIPT.format(
            base=shlex.quote(str(image.disk)), disk_mib=20480, qemu=shlex.join(argv), pause=pause
        )
        began = time.monotonic()
        try:
            subprocess.run(
                ["sh", "-c", script],
                cwd=folder, stdin=subprocess.DEVNULL, check=True, timeout=LIMIT_S,
            )  # fmt: skip
            return time.monotonic() - began
        finally:
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accelerator", default="auto", choices=["auto", "kvm", "tcg"])
    options = parser.parse_args()
    base = Path(
        os.environ.get("SANDBOX_BENCH_CACHE", f"/var/tmp/sandbox-bench-{os.getuid()}")
    ).absolute()
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        sys.exit(f"{base} belongs to somebody else")
    layout = Layout(base)
    layout.make()
    trimmed, plain = images(layout)
    # The workspace may not lie in the cache base.
    outside = Path(tempfile.mkdtemp(prefix="sandbox-bench."))
    environment = {**os.environ, "SANDBOX_CACHE_BASE": str(base)}
    environment.pop("SSH_AUTH_SOCK", None)
    conditions = report.conditions()
    seconds: dict[str, list[float]] = {}
    accelerator = options.accelerator
    try:
        for number in range(options.rounds):
            for name, image in (("ours", trimmed), ("plain", plain)):
                folder = outside / name
                folder.mkdir(exist_ok=True)
                taken, accelerator = ours(
                    environment, folder, "--image", image.ref,
                    "--accelerator", options.accelerator,
                )  # fmt: skip
                seconds.setdefault(name, []).append(taken)
                label, pause = ("bare", 0.2) if name == "ours" else ("plain, bare", 1.0)
                seconds.setdefault(label, []).append(
                    bare(layout, image, accelerator, folder, pause=pause)
                )
            now = ", ".join(f"{name} {values[-1]:.1f}" for name, values in seconds.items())
            print(f"round {number + 1}: {now}", file=sys.stderr)
    finally:
        for name in ("sandbox-ours", "sandbox-plain"):
            subprocess.run(
                [SANDBOX, "forget", name], env=environment, capture_output=True, check=False
            )
        shutil.rmtree(outside)
    print(f"{conditions} Accelerator {accelerator}, {options.rounds} interleaved rounds.\n")
    mine = statistics.median(seconds["ours"])
    what = {
        "ours": "`sandbox start`",
        "bare": "bare QEMU, same files and options",
        "plain": "`sandbox start --image local/debian-13:plain`",
        "plain, bare": "bare QEMU, untrimmed Debian, ssh once a second",
    }
    rows = [
        [what[name], report.spread(values), f"{statistics.median(values) / mine:.2f}"]
        for name, values in seconds.items()
    ]
    print(report.table(["Way", "Median (least to most), s", "Relative to ours"], rows))


if __name__ == "__main__":
    main()
