"""Where the user's files begin, as the environment says; `host/paths.py` has what lies below."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from sandbox_rpc.protocol.errors import PermissionDenied


def home() -> Path | None:
    """The user's home folder; None where HOME is unset and the user is in no table."""
    if folder := os.environ.get("HOME"):
        return Path(folder)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def cache_base() -> Path:
    """Where everything that can be made again lies; 0700."""
    if base := os.environ.get("SANDBOX_CACHE_BASE"):
        return Path(base).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "sandbox"
    return _home("SANDBOX_CACHE_BASE") / ".cache" / "sandbox"


def config_base() -> Path:
    """Where the user's settings lie."""
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base).absolute() / "sandbox"
    return _home("XDG_CONFIG_HOME") / ".config" / "sandbox"


def config_file() -> Path:
    """The user's settings."""
    return config_base() / "config.toml"


def _home(instead: str) -> Path:
    if (folder := home()) is None:
        raise PermissionDenied(
            "This user has no home folder.", hint=f"Set HOME, or {instead} to a folder."
        )
    return folder
