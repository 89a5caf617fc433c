"""A made-up host: its configuration files below a folder, and an environment."""

from __future__ import annotations

import base64
from pathlib import Path

from sandbox_rpc.host.registries.sources import Sources


class Machine:
    """Write its files, then look at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"HOME": str(root / "home"), "PATH": str(root / "bin")}
        (root / "bin").mkdir(parents=True)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def program(self, name: str, script: str = "#!/bin/sh\n") -> Path:
        path = self.write(f"bin/{name}", script)
        path.chmod(0o755)
        return path

    def look(self) -> Sources:
        return Sources(self.environment, self.root)


def certificate(seed: int, size: int = 600) -> bytes:
    """DER as far as anybody here looks: one value of the length it says."""
    body = bytes((seed * 7 + index * 31) % 256 for index in range(size))
    return b"\x30\x82" + size.to_bytes(2, "big") + body


def pem(der: bytes, what: str = "CERTIFICATE") -> str:
    """As OpenSSL writes it."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {what}-----\n{text}-----END {what}-----\n"
