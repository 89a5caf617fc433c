"""cargo: config.toml and its variables. What it has built in is in its binary and stays there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Kind, Registry

CRATES_IO = "crates-io"
MAX_LINKS = 10
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def read(sources: Sources) -> list[Registry]:
    """What stands in for crates-io, and registries with names of their own."""
    configuration = _configuration(sources)
    sources.bundle(
        sources.environment.get("CARGO_HTTP_CAINFO")
        or _text(_table(configuration, "http"), "cainfo")
    )
    registries: list[Registry] = []
    if url := _replacement(_table(configuration, "source")):
        registries += sources.registry(Kind.CARGO, url, CRATES_IO)
    indexes = {
        name: _text(_table(_table(configuration, "registries"), name), "index")
        for name in _table(configuration, "registries")
    }
    for key, value in sources.environment.items():
        if named := re.fullmatch(r"CARGO_REGISTRIES_(\w+)_INDEX", key):
            indexes[named[1].lower().replace("_", "-")] = value
    for name, index in indexes.items():
        # An index in git would be fetched by git, with whatever credentials; not ours to pass on.
        if index and _NAME.fullmatch(name) and index.startswith("sparse+"):
            registries += sources.registry(Kind.CARGO, index, name)
    return registries


def _replacement(sources: Mapping[str, Any]) -> str | None:
    name, seen = CRATES_IO, 0
    while following := _text(_table(sources, name), "replace-with"):
        seen += 1
        if seen > MAX_LINKS:
            return None
        name = following
    url = _text(_table(sources, name), "registry")
    return url if name != CRATES_IO and url and url.startswith("sparse+") else None


def _configuration(sources: Sources) -> Mapping[str, Any]:
    home = sources.environment.get("CARGO_HOME", "")
    folder = Path(home) if home.startswith("/") else sources.user(".cargo")
    for file in (folder / "config", folder / "config.toml"):
        text = sources.text(file)
        if text.strip():
            try:
                return tomllib.loads(text)
            except (tomllib.TOMLDecodeError, RecursionError):
                sources.warn(f"{file} is no TOML that can be read.")
                return {}
    return {}


def _table(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _text(parent: Mapping[str, Any], name: str) -> str | None:
    value = parent.get(name)
    return value if isinstance(value, str) else None
