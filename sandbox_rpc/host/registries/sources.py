"""Reading other programs' configuration files, whatever they hold."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from sandbox_rpc.host.registries.url import Kind, Registry, Unfit, clean

MAX_BYTES = 1 << 20
"""Of one file; honest ones have a few hundred, bundles of certificates some 250 000."""


class Sources:
    """The environment and files of one look, and what there is to say about them."""

    def __init__(self, environment: Mapping[str, str], root: Path = Path("/")) -> None:
        self.environment = environment
        self.root = root
        self.warnings: list[str] = []
        self.bundles: dict[str, None] = {}
        """Files that tools were told to take authorities from, in order."""
        self.inline: list[str] = []
        """PEM that stood in a configuration itself."""
        home = environment.get("HOME", "")
        self.home: Path | None = Path(home) if home.startswith("/") else None

    def variable(self, name: str) -> str | None:
        """A variable that is set to something, whatever the case of its name."""
        if value := self.environment.get(name):
            return value
        wanted = name.lower()
        return next(
            (value for key, value in self.environment.items() if key.lower() == wanted and value),
            None,
        )

    def system(self, path: str) -> Path:
        """A file of the system."""
        return self.root / path

    def user(self, path: str) -> Path:
        """A file in the home folder; without one, a file that is not there."""
        return (self.home or Path("/nonexistent")) / path

    def configuration(self, name: str) -> Path:
        """A file in the user's folder for configuration."""
        base = self.environment.get("XDG_CONFIG_HOME", "")
        return Path(base, name) if base.startswith("/") else self.user(f".config/{name}")

    def data(self, path: Path | str) -> bytes:
        """What is in a file; empty, and at most a warning, where that cannot be had."""
        try:
            # Opening a FIFO would wait for its writer.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
                self.warn(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.")
            return b""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return b""
        with os.fdopen(fd, "rb") as file:
            try:
                found = file.read(MAX_BYTES + 1)
            except OSError as error:
                self.warn(f"{path} cannot be read: {error.strerror}.")
                return b""
        if len(found) > MAX_BYTES:
            self.warn(f"{path} is larger than {MAX_BYTES >> 10} KiB and was not read.")
            return b""
        return found

    def text(self, path: Path) -> str:
        """The same as text."""
        found = self.data(path)
        if b"\0" in found:
            self.warn(f"{path} is no text and was not read.")
            return ""
        return found.decode(errors="replace").removeprefix("\ufeff")

    def bundle(self, path: str | None) -> None:
        """Note a file of certificates that a tool was told to trust."""
        if path and path.lower() not in ("null", "undefined", "true", "false", "system"):
            if path.startswith("~/") and self.home:
                path = str(self.home / path[2:])
            if path.startswith("/"):
                self.bundles[path] = None

    def registry(
        self, kind: Kind, url: str, role: str = "", *, configured: bool = True
    ) -> list[Registry]:
        """The registry of an address, if it is one on a network; a warning if it may not travel."""
        try:
            found = clean(kind, url, role, configured=configured)
        except Unfit as problem:
            self.warn(f"A {kind} registry of this host {problem}; the guest is not told of it.")
            return []
        return [found] if found else []

    def warn(self, sentence: str) -> None:
        """Something to tell the user; never quotes what a file says."""
        self.warnings.append(sentence)
