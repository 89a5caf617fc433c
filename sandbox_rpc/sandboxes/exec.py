"""Run something in the guest with the OpenSSH client."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path


def ssh_command(
    config: Path,
    name: str,
    argv: Sequence[str],
    *,
    folder: str,
    tty: bool,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The ssh command line that runs `argv` in `folder` of the guest; none: a login shell.

    ssh hands its words to a shell in the guest, joined by blanks, so they are quoted here: what
    arrives is exactly `argv`.
    """
    settings = [f"{key}={value}" for key, value in (environment or {}).items()]
    if argv:
        work = shlex.join(["env", *settings, *argv] if settings else list(argv))
    else:
        work = '"$SHELL" -l'
    remote = f"cd {shlex.quote(folder)} && exec {work}"
    return ["ssh", "-F", str(config), "-tt" if tty else "-T", "-o", "LogLevel=ERROR", name, remote]
