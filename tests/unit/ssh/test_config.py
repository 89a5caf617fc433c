"""The Host block, judged by OpenSSH itself (`ssh -G` prints what it understood)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox_rpc.ssh import config
from sandbox_rpc.ssh.config import Endpoint


def understood(path: Path, name: str, *options: str) -> dict[str, str]:
    """OpenSSH's reading of a configuration."""
    done = subprocess.run(
        ["ssh", "-F", str(path), *options, "-G", name], capture_output=True, check=True, text=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def plain(value: str) -> str:
    """A path as ssh will open it: it prints some before it has expanded their per cent signs."""
    return value.strip('"').replace("%%", "%")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A running sandbox's configuration, in a folder with an awkward name."""
    folder = tmp_path / "a folder 100%"
    folder.mkdir()
    path = folder / "ssh_config"
    path.write_text(
        config.block(
            "sandbox-app",
            identity_file=folder / "id_ed25519",
            known_hosts=folder / "known_hosts",
            endpoint=Endpoint(40022, "ssh-ed25519 AAAA"),
            starter=["unused"],
        )
    )
    return path


def test_running(written: Path) -> None:
    """Loopback, our key only, strict, nothing of the user's known_hosts."""
    seen = understood(written, "sandbox-app")
    assert (seen["hostname"], seen["port"], seen["user"]) == ("127.0.0.1", "40022", "dev")
    assert seen["stricthostkeychecking"] in ("true", "yes")
    assert seen["hostkeyalias"] == "sandbox-app"
    assert seen["globalknownhostsfile"] == "/dev/null"
    assert plain(seen["userknownhostsfile"]) == str(written.with_name("known_hosts"))
    assert plain(seen["identityfile"]) == str(written.with_name("id_ed25519"))
    assert seen["identitiesonly"] == "yes"
    assert seen["updatehostkeys"] in ("false", "no")
    assert "proxycommand" not in seen


def test_nothing_of_the_user_goes_in(written: Path) -> None:
    """Not even with ssh -A: there is no agent to forward."""
    seen = understood(written, "sandbox-app", "-A", "-X")
    assert seen["identityagent"] == "none"
    assert seen["permitlocalcommand"] == "no"
    assert seen["controlpath"] == "none" if "controlpath" in seen else True


def test_stub_starts_the_sandbox(tmp_path: Path) -> None:
    """A stopped sandbox's alias runs the starter, whatever is in its arguments."""
    path = tmp_path / "ssh_config"
    marker = tmp_path / "it's 100% here"
    path.write_text(
        config.block(
            "sandbox-app",
            identity_file=tmp_path / "id",
            known_hosts=tmp_path / "known_hosts",
            endpoint=None,
            starter=["touch", str(marker)],
        )
    )
    done = subprocess.run(
        ["ssh", "-F", str(path), "-o", "BatchMode=yes", "sandbox-app", "true"],
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 255
    assert marker.exists()


def test_index_includes_every_sandbox(tmp_path: Path, written: Path) -> None:
    """One Include line in the user's file reaches all."""
    home = tmp_path / "names" / "sandbox-app"
    home.mkdir(parents=True)
    (home / "ssh_config").write_text(written.read_text())
    top = tmp_path / "ssh_config"
    top.write_text(config.index(tmp_path / "names"))
    assert understood(top, "sandbox-app")["port"] == "40022"
    assert understood(top, "example")["port"] == "22"


def test_alias_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH_CONFIG_DIR moves it; a folder that is not there gets no file."""
    monkeypatch.setenv("SSH_CONFIG_DIR", str(tmp_path))
    assert config.alias_folder() == tmp_path
    assert config.alias_file(tmp_path, "sandbox-app").name == "alias-sandbox-app.conf"
    monkeypatch.setenv("SSH_CONFIG_DIR", str(tmp_path / "missing"))
    assert config.alias_folder() is None
    monkeypatch.delenv("SSH_CONFIG_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.alias_folder() is None
    (tmp_path / ".ssh" / "config.d").mkdir(parents=True)
    assert config.alias_folder() == tmp_path / ".ssh" / "config.d"
