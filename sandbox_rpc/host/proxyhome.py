"""The files of a sandbox's proxy; a part of `paths`, which is the module to import."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen
class ProxyHome:
    """Where a sandbox may go through its proxy, and what it asked for."""

    folder: Path

    @property
    def allowlist(self) -> Path:
        """The rules, edited by people too. The proxy sees the folder, so it may be replaced."""
        return self.folder / "allowlist.txt"

    @property
    def once(self) -> Path:
        """Further rules until the machine ends."""
        return self.folder / "allowlist.once.txt"

    @property
    def lock(self) -> Path:
        """Held while one of the two changes."""
        return self.folder / "lock"

    @property
    def container(self) -> Path:
        """What a proxy in a container sees of it: the rules in tinyproxy's words."""
        return self.folder / "container"

    @property
    def journal(self) -> Path:
        """The only folder that the proxy can write: access.jsonl, blocked.json."""
        return self.folder / "log"
