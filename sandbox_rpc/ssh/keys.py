"""Keys, made by ssh-keygen and asked of the user's SSH agent."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import anyio
from attrs import field, frozen

from sandbox_rpc.host import files, process
from sandbox_rpc.protocol.errors import DiskFull, ToolMissing

AGENT_LIMIT_S = 2
"""An SSH agent that waits for a person (a locked one, a hardware one) must not hold up a start."""


@frozen
class KeyPair:
    """An ed25519 key in OpenSSH's formats."""

    private: str = field(repr=False)
    public: str
    """Type, base64 and comment on one line."""


async def make_pair(comment: str, folder: Path) -> KeyPair:
    """A new key; its private half lies in a temporary folder below `folder` for a moment.

    Raises:
        ToolMissing: ssh-keygen is not installed.
        DiskFull: no room.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".key.") as temporary:
        path = Path(temporary, "key")
        try:
            await process.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
            )
        except subprocess.CalledProcessError as error:
            if b"No space left" in error.stderr or b"quota exceeded" in error.stderr:
                raise DiskFull(f"No space left to write {path}.", path=str(path)) from error
            raise
        return KeyPair(path.read_text(), path.with_suffix(".pub").read_text().strip())


async def ensure_client_key(path: Path, comment: str) -> str:
    """The public half of the key at `path`, which is made where it is missing."""
    public = path.with_suffix(".pub")
    try:
        if path.stat().st_size:
            return public.read_text().strip()
    except FileNotFoundError:
        pass
    pair = await make_pair(comment, path.parent)
    files.replace(public, pair.public + "\n")
    files.replace(path, pair.private)
    return pair.public


async def agent_keys(socket: str | None = None) -> tuple[str, ...]:
    """The public keys that the user's SSH agent holds; none where it does not answer in time."""
    socket = socket or os.environ.get("SSH_AUTH_SOCK")
    if not socket:
        return ()
    try:
        with anyio.move_on_after(AGENT_LIMIT_S):
            done = await process.run(["ssh-add", "-L"], env={**os.environ, "SSH_AUTH_SOCK": socket})
            return public_keys(done.stdout.decode(errors="replace"))
    except (subprocess.CalledProcessError, ToolMissing, OSError):
        pass
    return ()


def public_keys(text: str) -> tuple[str, ...]:
    """The lines of `ssh-add -L` that are keys: a type, base64, perhaps a comment."""
    kinds = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")
    return tuple(
        line.strip() for line in text.splitlines() if line.startswith(kinds) and " " in line
    )
