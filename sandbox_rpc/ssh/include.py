"""The user's SSH configuration: whether it knows an alias, and the one line that teaches it.

The editor's extension does the same in `editor-extension/src/sshConfig.ts`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sandbox_rpc.host import files, process

LIMIT_S = 10


def config_file(home: Path) -> Path:
    """What plain `ssh` reads first."""
    return home / ".ssh" / "config"


def knows(file: Path, alias: str) -> bool:
    """Whether OpenSSH, reading this file, knows the alias as ours: its key pinned by that name."""
    done = subprocess.run(
        [process.find("ssh"), "-F", str(file), "-G", "--", alias],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    # ssh prints keywords and host names in small letters.
    return f"hostkeyalias {alias.lower()}" in done.stdout.splitlines()


def line(ours: Path) -> str:
    """The line to add."""
    quoted = str(ours).replace("%", "%%")
    return f'Include "{quoted}"'


def add(file: Path, ours: Path) -> None:
    """Put the line at the top, where no Host block above can hide it.

    The file keeps its mode and its bytes, and a link stays a link.

    Raises:
        PermissionDenied, DiskFull: it cannot be written.
    """
    real = file.resolve()
    wanted = os.fsencode(line(ours))
    with files.translated(real):
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = real.read_bytes() if real.exists() else b""
        mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
        kept = [one for one in text.splitlines(keepends=True) if one.strip() != wanted]
        fresh = real.with_name(f"{real.name}.{os.getpid()}.new")
        fresh.write_bytes(wanted + b"\n" + b"".join(kept))
        fresh.chmod(mode)
        fresh.replace(real)
