"""A user's configuration and a workspace, both empty."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's config.toml would be; its folder exists."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "sandbox"
    folder.mkdir(parents=True)
    return folder / "config.toml"


@pytest.fixture
def workspace(config_file: Path, tmp_path: Path) -> Path:
    """A folder to share, beside the user's configuration."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
