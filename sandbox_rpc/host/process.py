"""Other programs: started by one door, identified so that a reused pid is never signalled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
from attrs import frozen

from sandbox_rpc.protocol.errors import ToolMissing

PACKAGES: Mapping[str, str] = {
    "bwrap": "bubblewrap",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ssh-add": "openssh-client",
    "newuidmap": "uidmap",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Debian's package for a program, for hints."""


def find(program: str) -> str:
    """The path of a program.

    Raises:
        ToolMissing: it is not installed.
    """
    # /usr/sbin is not on an ordinary user's PATH in Debian, mke2fs lives there.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        package = PACKAGES.get(program, program)
        raise ToolMissing(
            f"The program {program} is not installed.",
            hint=f"Install it (Debian: apt-get install {package}).",
            tool=program,
            package=package,
        )
    return path


async def run(
    argv: Sequence[str], *, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with no input; cancelling ends it.

    Raises:
        ToolMissing: it is not installed.
        subprocess.CalledProcessError: it failed and `check` is set.
    """
    return await anyio.run_process(
        [find(argv[0]), *argv[1:]], stdin=subprocess.DEVNULL, check=check, env=env
    )


@frozen
class ProcessId:
    """One process for good: its number, and what tells it from a later one of the same number."""

    pid: int
    start_ticks: int
    """Start time in clock ticks since boot, from /proc/PID/stat."""
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        return self.boot_id == boot_id() and _stat(self.pid) == (self.start_ticks, True)

    def open(self) -> int | None:
        """A pidfd, readable when the process has ended; None where it has ended already."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # Compared after opening: from here on the descriptor cannot come to mean another one.
        if self.is_alive():
            return fd
        os.close(fd)
        return None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to this process, if it still is this process."""
        if (fd := self.open()) is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)


def identify(pid: int) -> ProcessId | None:
    """The process that has this number now."""
    stat = _stat(pid)
    return ProcessId(pid, stat[0], boot_id()) if stat else None


async def wait_ended(pidfd: int) -> None:
    """Wait until the process behind a pidfd has ended; works for other people's children too."""
    await anyio.wait_readable(pidfd)


def boot_id() -> str:
    """Names the present boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[int, bool] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19]), fields[0] not in (b"Z", b"X")
