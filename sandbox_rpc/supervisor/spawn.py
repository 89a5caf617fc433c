"""Make sure that a sandbox has its supervisor: find it, or start it detached from us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio

from sandbox_rpc.host import files, locks, sockets
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxBusy
from sandbox_rpc.supervisor import scope, state

READY = b"ready"
BUSY = b"busy"
ATTEMPTS = 40
PAUSE_S = 0.1
ANNOUNCE_LIMIT_S = 60
MAX_LOG = 1 << 20
"""Bytes of a supervisor's log before it begins anew."""


async def ensure(layout: Layout, name: str) -> None:
    """Return when the sandbox's supervisor takes connections.

    Raises:
        StateNewer: it has died, and only a newer version can take its machine over.
        SandboxBusy: it does not come up; the message has the end of its log.
    """
    home = layout.home(name)
    for _ in range(ATTEMPTS):
        try:
            await (await sockets.connect(home.supervisor_socket)).aclose()
        except OSError:
            pass
        else:
            return
        if locks.is_held(home.vm_lock):
            state.load(layout.room(name))
        word = await _spawn(layout, name)
        if word == READY:
            return
        if word != BUSY:
            break
        # Another one holds the lock: it is about to listen, or about to end.
        await anyio.sleep(PAUSE_S)
    raise SandboxBusy(
        f"The supervisor of {name} does not come up: {_last_words(layout, name)}",
        hint=f"Its log is {layout.home(name).supervisor_log}.",
        name=name,
    )


async def _spawn(layout: Layout, name: str) -> bytes:
    """Start a supervisor and return the word it announces itself with; empty where it died."""
    log = layout.home(name).supervisor_log
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        with files.translated(log):
            if log.exists() and log.stat().st_size > MAX_LOG:
                log.unlink()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for prefix in _prefixes(name):
                process = subprocess.Popen(  # noqa: ASYNC220 (outlives us; fork takes 1 ms)
                    [*prefix, sys.executable, "-P", "-m", "sandbox_rpc.supervisor",
                     "--announce", str(write), name],
                    # A session of its own and no pipe of ours: a client that is killed, or an
                    # editor that waits for its children's pipes, is not tied to the machine.
                    start_new_session=True, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=output, pass_fds=[write], cwd="/",
                    env={**os.environ, "SANDBOX_CACHE_BASE": str(layout.base)},
                )  # fmt: skip
                if not prefix or not await _fails_at_once(process):
                    break
        finally:
            os.close(output)
            os.close(write)
        # Its exit status is for nobody, but as long as we live it would stay a zombie.
        return await anyio.to_thread.run_sync(_hear, read, process)
    finally:
        os.close(read)


def _hear(descriptor: int, process: subprocess.Popen[bytes]) -> bytes:
    word = b""
    while chunk := os.read(descriptor, 64):
        word += chunk
        if word.endswith(b"\n"):
            break
    else:
        process.wait(ANNOUNCE_LIMIT_S)
    return word.strip()


def _prefixes(name: str) -> list[list[str]]:
    """A scope, where there can be one, and without it.

    Without, the machine lives in the control group of the editor or terminal that started it, and
    ends with it.
    """
    inside = scope.command(name)
    return [inside, []] if inside else [[]]


async def _fails_at_once(process: subprocess.Popen[bytes]) -> bool:
    """Whether systemd-run refused; it turns into the program itself when it does not."""
    for _ in range(20):
        if process.poll() is not None:
            return process.returncode != 0
        try:
            if Path(f"/proc/{process.pid}/comm").read_text().strip() != "systemd-run":
                return False
        except OSError:
            return False
        await anyio.sleep(0.01)
    return False


def _last_words(layout: Layout, name: str) -> str:
    try:
        lines = layout.home(name).supervisor_log.read_text(errors="replace").splitlines()
    except OSError:
        return "it left no log"
    return lines[-1] if lines else "it left no word"
