"""The control group of a sandbox: all its processes together, with a limit on memory and tasks.

A transient scope of the user's service manager. The supervisor is started in it, and what it
starts belongs to it too: QEMU, bubblewrap, the network process. Where there is no such manager
(containers, hosts without systemd, some `su` and cron jobs) there is no limit, and `sandbox status`
says so.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sandbox_rpc.protocol.types import Layer

LAYER = "limits"
OVERHEAD_MIB = 2048
"""Beside the guest's memory: emulation translates code into up to 1 GiB of its own, and the kernel
counts what it caches of the guest's disk and workspace, which it gives back under pressure."""
TASKS = 512
"""Beside the guest's processors: QEMU's pools for the disk and 9p, the supervisor's threads."""
LIMIT_S = 10
HIERARCHY = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def missing(environment: Mapping[str, str] = os.environ) -> str:
    """Why there can be no scope, as the rest of a sentence; empty where there can."""
    if shutil.which("systemd-run") is None or shutil.which("systemctl") is None:
        return "there is no systemd"
    runtime = environment.get("XDG_RUNTIME_DIR")
    if not runtime or not Path(runtime, "systemd", "private").exists():
        return "this session has no systemd user manager"
    return ""


def command(name: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What is put before a command line to start it in a scope of its own; empty without one."""
    if missing(environment):
        return []
    return [
        "systemd-run", "--user", "--scope", "--quiet", "--collect",
        # The scope before may still be ending, hence the random part.
        f"--unit={name}-{secrets.token_hex(4)}.scope", f"--description=Sandbox {name}", "--",
    ]  # fmt: skip


def properties(memory_mib: int, cpus: int) -> dict[str, int]:
    """The limits of a guest's size; memory in bytes. Pure."""
    return {"MemoryMax": (memory_mib + OVERHEAD_MIB) << 20, "TasksMax": TASKS + cpus}


def place(listing: str, name: str) -> str | None:
    """The path of our scope in the hierarchy, from /proc/self/cgroup; None where it is not ours.

    A terminal's or an editor's scope is left alone: the limits would be those of everything in it.
    """
    for line in listing.splitlines():
        if line.startswith("0::"):
            path = line[3:]
            unit = re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{8}}\.scope", path.rpartition("/")[2])
            return path if unit else None
    return None


def limit(name: str, memory_mib: int, cpus: int) -> Layer:
    """Set the limits on the scope this process is in; says what holds. Blocks, some 20 ms."""
    why = missing()
    path = None if why else place(OWN.read_text(), name)
    if path is None:
        return Layer(LAYER, False, why or "the sandbox is in no scope of its own")
    wanted = properties(memory_mib, cpus)
    unit = path.rpartition("/")[2]
    try:
        subprocess.run(
            ["systemctl", "--user", "set-property", "--runtime", unit,
             *(f"{key}={value}" for key, value in wanted.items())],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        # The manager takes limits also where the kernel's controllers were not handed to it.
        for key, file in (("MemoryMax", "memory.max"), ("TasksMax", "pids.max")):
            found = (HIERARCHY / path.lstrip("/") / file).read_text().strip()
            if found != str(wanted[key]):
                return Layer(LAYER, False, f"systemd set no {key}: {file} is {found}")
    except (OSError, subprocess.SubprocessError) as error:
        return Layer(LAYER, False, f"systemd does not set them: {error}")
    memory = (wanted["MemoryMax"] >> 20) / 1024
    return Layer(
        LAYER, True,
        f"QEMU and all that belongs to it have {memory:.1f} GiB and {wanted['TasksMax']} tasks",
    )  # fmt: skip
