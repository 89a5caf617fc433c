"""Keys, with the real ssh-keygen and a real ssh-agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.ssh import keys


def test_pair_matches_and_leaves_nothing(tmp_path: Path) -> None:
    """The public half belongs to the private one; no file of it stays."""
    pair = anyio.run(keys.make_pair, "comment", tmp_path)
    path = tmp_path / "key"
    path.write_text(pair.private)
    path.chmod(0o600)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, check=True, text=True
    ).stdout
    assert public.split()[:2] == pair.public.split()[:2]
    assert list(tmp_path.iterdir()) == [path]
    assert "PRIVATE" not in repr(pair)


def test_client_key_is_made_once(tmp_path: Path) -> None:
    """It outlives a stop: ssh reads it before the stub has started anything."""
    path = tmp_path / "id_ed25519"
    first = anyio.run(keys.ensure_client_key, path, "c")
    assert path.stat().st_mode & 0o777 == 0o600
    assert anyio.run(keys.ensure_client_key, path, "c") == first
    # Half a key, as after a full disk, is made anew.
    path.write_bytes(b"")
    assert anyio.run(keys.ensure_client_key, path, "c") != first


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An ssh-agent with one key; ended by pid."""
    socket = tmp_path / "agent.sock"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        key = tmp_path / "mine"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", str(key)],
            check=True,
        )
        subprocess.run(
            ["ssh-add", "-q", str(key)],
            check=True, env={**os.environ, "SSH_AUTH_SOCK": str(socket)},
        )  # fmt: skip
        yield socket
    finally:
        process.kill()
        process.wait()


def test_agent_keys(agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's agent holds may log in."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    (key,) = anyio.run(keys.agent_keys)
    assert key.startswith("ssh-ed25519 ")
    assert key.endswith(" mine")


def test_no_agent_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, dead or deaf: the start goes on with our own key."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert anyio.run(keys.agent_keys) == ()
    assert anyio.run(keys.agent_keys, str(tmp_path / "nothing")) == ()


def test_lines_that_are_keys() -> None:
    """ssh-add says sentences too."""
    assert keys.public_keys("The agent has no identities.\n") == ()
    text = "ssh-rsa AAAA me@host\nsk-ssh-ed25519@openssh.com BBBB token\nrubbish\n"
    assert len(keys.public_keys(text)) == 2
