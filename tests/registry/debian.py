"""Programs of Debian 13 as judges, by this host's own apt and mirror: unpacked, not installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import anyio

from sandbox_rpc.images import mirror

LIMIT_S = 300


class Debian:
    """Packages of trixie, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = anyio.run(mirror.find, "")
        assert found is not None, "this host's apt knows no Debian mirror"
        (line,) = [one for one in found.sources("trixie") if one.endswith(" trixie main")]
        (folder / "sources.list").write_text(f"{line}\n")
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        self._apt("update")

    def program(self, name: str) -> Path:
        """The program that a package is named for."""
        path = self._folder / "root" / "usr" / "bin" / name
        if not path.exists():
            self._apt("download", name)
            (package,) = self._folder.glob(f"{name}_*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), str(self._folder / "root")], check=True)
        return path

    def _apt(self, *words: str) -> None:
        options = {
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": self._folder / "lists",
            "Dir::State::status": "/dev/null", "Dir::Cache": self._folder / "cache",
            "APT::Sandbox::User": "root",
        }  # fmt: skip
        given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        done = subprocess.run(
            ["apt-get", "-qq", *given, *words], cwd=self._folder, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        # No address of a mirror in a log.
        assert done.returncode == 0, re.sub(r"[a-z+]*://\S*", "(address)", done.stderr)
