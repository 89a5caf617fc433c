"""pip: its configuration files, its variables, and the index it has built in."""

from __future__ import annotations

import configparser
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Kind, Registry

_SECTIONS = ("global", "install", "download")
_BUILT_IN = re.compile(
    r'^PyPI\s*=\s*PackageIndex\(\s*"(https?://[^"]+)",\s*file_storage_domain="([\w.-]+)"',
    re.MULTILINE,
)


def read(sources: Sources) -> list[Registry]:
    """The indexes, and where pip's own index keeps its files."""
    values = _values(sources)
    sources.bundle(values.get("cert"))
    registries: list[Registry] = []
    for url in values.get("index-url", "").split()[:1]:
        registries += sources.registry(Kind.PIP, url, "index")
    for url in values.get("extra-index-url", "").split():
        registries += sources.registry(Kind.PIP, url, "extra")
    built_in = _built_in(sources)
    if not values.get("index-url", "").strip():
        return built_in + registries
    # Its pages lead to files at another host, also where it is the index by name.
    named = {registry.host for registry in registries}
    if any(one.role == "index" and one.host in named for one in built_in):
        registries += [one for one in built_in if one.role == "files"]
    return registries


def _values(sources: Sources) -> dict[str, str]:
    values: dict[str, str] = {}
    for file in _files(sources):
        text = sources.text(file)
        if not text.strip():
            continue
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text)
        except (configparser.Error, ValueError):
            sources.warn(f"{file} is no configuration of pip that can be read.")
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key in ("index-url", "extra-index-url", "cert"):
        if value := sources.environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            values[key] = value
    return values


def _files(sources: Sources) -> Iterator[Path]:
    named = sources.environment.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":
        return
    for folder in sources.environment.get("XDG_CONFIG_DIRS", "").split(":"):
        if folder.startswith("/"):
            yield Path(folder, "pip", "pip.conf")
    yield sources.system("etc/xdg/pip/pip.conf")
    yield sources.system("etc/pip.conf")
    yield sources.user(".pip/pip.conf")
    yield sources.configuration("pip/pip.conf")
    if sources.environment.get("VIRTUAL_ENV", "").startswith("/"):
        yield Path(sources.environment["VIRTUAL_ENV"], "pip.conf")
    if named.startswith("/"):
        yield Path(named)


def _built_in(sources: Sources) -> list[Registry]:
    """What an installed pip uses where nothing is configured; its own source says so."""
    for folder in _installed(sources):
        if found := _BUILT_IN.search(sources.text(folder / "_internal/models/index.py")):
            index = found[1].rstrip("/") + "/simple"
            return [
                *sources.registry(Kind.PIP, index, "index", configured=False),
                *sources.registry(Kind.PIP, f"https://{found[2]}/", "files", configured=False),
            ]
    return []


def _installed(sources: Sources) -> Iterator[Path]:
    if sources.root == Path("/"):
        spec = importlib.util.find_spec("pip")
        if spec and spec.origin:
            yield Path(spec.origin).parent
    for pattern in (
        "usr/lib/python3/dist-packages/pip",
        "usr/lib/python3*/site-packages/pip",
        "usr/local/lib/python3*/*-packages/pip",
    ):
        yield from sorted(sources.root.glob(pattern))
