"""A real login with the pinned key: the only proof that a guest is ready."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio

from sandbox_rpc.host import process
from sandbox_rpc.protocol.errors import SshUnreachable

PAUSE_S = 0.5


def command(config: Path, name: str) -> list[str]:
    """The ssh command line up to the alias, independent of the user's own configuration."""
    return ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", name]


async def prove(config: Path, name: str, *, timeout_s: float) -> None:
    """Log in and run `true`.

    The guest's socket listens before its sshd may answer, so the first attempt waits there and is
    nearly always the only one.

    Raises:
        SshUnreachable: no attempt succeeded in `timeout_s` seconds; says what ssh said last.
    """
    said = "it did not answer"
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                await process.run([*command(config, name), "true"])
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip() or f"exit {error.returncode}"
                await anyio.sleep(PAUSE_S)
            else:
                return
    raise SshUnreachable(
        f"The guest is up, but no SSH login succeeded within {timeout_s:.0f} s: {said}",
        hint=f"Look at the console: sandbox console {name}",
    )
