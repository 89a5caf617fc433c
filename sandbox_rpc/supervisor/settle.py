"""A guest without our agent, after its first login: what its image did not do for itself."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import anyio

from sandbox_rpc.guest.dialects import WORKSPACE
from sandbox_rpc.guest.identity import WORKSPACE_MOUNT
from sandbox_rpc.host import process
from sandbox_rpc.protocol.errors import GuestFailed
from sandbox_rpc.ssh import login

LIMIT_S = 120.0
PAUSE_S = 1.0
TRIES = 20

SCRIPT = """\
set -u
workspace={workspace}
mounted() {{ grep " $workspace 9p " /proc/mounts; }}
# The image's own way may be about to.
try=0
until mounted >/dev/null; do
    try=$((try + 1))
    [ $try -le {tries} ] || break
    systemctl is-enabled -q home-dev-workspace.mount 2>/dev/null || break
    sleep {pause}
done
# With its options a shared memory map fails, files are root's, or written data is lost. 0x5 is how
# Linux says mmap since 6.4; what was before that wrote straight to the host without directio.
case $(mounted) in
    *,cache=mmap,* | *,cache=0x5,*,directio,*) ;;
    *)
        ! mounted >/dev/null || sudo -n umount "$workspace" || :
        if ! mounted >/dev/null; then
            sudo -n install -d -o "$(id -u)" -g "$(id -g)" "$workspace" || exit 41
            sudo -n mount -t 9p -o {options} workspace "$workspace" || exit 41
        fi
        ;;
esac
{environment}
"""
LINE = """\
grep -qxF -- {line} /etc/environment 2>/dev/null ||
    printf '%s\\n' {line} | sudo -n tee -a /etc/environment >/dev/null || exit 42
"""


def script(environment: dict[str, str]) -> str:
    """What is run in the guest as dev."""
    lines = (f"{name}={value}" for name, value in sorted(environment.items()))
    return SCRIPT.format(
        workspace=WORKSPACE,
        tries=TRIES,
        pause=PAUSE_S,
        options=shlex.quote(f"{WORKSPACE_MOUNT},nosuid,nodev"),
        environment="".join(LINE.format(line=shlex.quote(line)) for line in lines),
    )


async def settle(config: Path, name: str, environment: dict[str, str]) -> None:
    """See that the workspace is mounted and the environment set.

    Raises:
        GuestFailed: they cannot be.
    """
    argv = login.command(config, name)
    argv[0] = process.find(argv[0])
    with anyio.move_on_after(LIMIT_S):
        done = await anyio.run_process(
            [*argv, "sh", "-s"], input=script(environment).encode(), check=False,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode == 0:
            return
        said = done.stderr.decode(errors="replace").strip()[-500:]
        what = "mount the workspace" if done.returncode == 41 else "take its environment"
        raise GuestFailed(
            f"The guest could not {what}: {said or f'status {done.returncode}'}",
            hint="Its kernel needs 9p over virtio, and dev needs sudo without a password.",
        )
    raise GuestFailed(f"The guest did not mount the workspace within {LIMIT_S:.0f} s.")
