"""The line that teaches the user's SSH our aliases, judged by the real OpenSSH client."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_rpc.ssh import include

BLOCK = "Host sandbox-App\n    HostKeyAlias sandbox-App\n    HostName 127.0.0.1\n"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    file = tmp_path / "a cache" / "ssh_config"
    file.parent.mkdir()
    file.write_text(BLOCK)
    return file


@pytest.mark.parametrize(
    "before", ["", "Host *\n  User me\n", "Host other\n  Port 1\nMatch all\n  Port 2\n"]
)
def test_ssh_knows_the_alias_afterwards(tmp_path: Path, ours: Path, before: str) -> None:
    """Whatever stands in the file, which keeps the rest and its mode."""
    file = tmp_path / "config"
    file.write_text(before)
    file.chmod(0o640)
    assert not include.knows(file, "sandbox-App")
    for _ in range(2):
        include.add(file, ours)
        assert include.knows(file, "sandbox-App")
        assert file.read_text() == f"{include.line(ours)}\n{before}"
        assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_not_there(tmp_path: Path, ours: Path) -> None:
    """It is made, for its owner only."""
    file = include.config_file(tmp_path / "home")
    assert not include.knows(file, "sandbox-App")
    include.add(file, ours)
    assert include.knows(file, "sandbox-App")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_stays_one(tmp_path: Path, ours: Path) -> None:
    """Dotfiles are often links."""
    real, file = tmp_path / "dotfiles", tmp_path / "config"
    real.write_text("Host x\n")
    file.symlink_to(real)
    include.add(file, ours)
    assert file.is_symlink()
    assert real.read_text().startswith(include.line(ours))


def test_the_bytes_of_the_file_are_kept(tmp_path: Path) -> None:
    """Whatever encoding and ends of lines it has."""
    file = tmp_path / "config"
    before = b"# caf\xe9 \xc3\xa9 \x85\r\nHost x\r\n"
    file.write_bytes(before)
    ours = Path("/\xe9/ssh_config")
    for _ in range(2):
        include.add(file, ours)
        assert file.read_bytes() == include.line(ours).encode() + b"\n" + before
