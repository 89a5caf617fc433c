"""npm: its npmrc files, its variables, and the registry it has built in."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Kind, Registry

_SCOPE = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*):registry")
_BUILT_IN = re.compile(r"""['"]registry['"],\s*\{\s*default:\s*['"](https?://[^'"]+)['"]""")
_DEFINITIONS = "@npmcli/config/lib/definitions/definitions.js"


def read(sources: Sources) -> list[Registry]:
    """The registry and those of scopes. The workspace's own .npmrc is in the guest anyway."""
    values = _values(sources)
    sources.bundle(values.get("cafile"))
    if "-----BEGIN" in values.get("ca", ""):
        sources.inline.append(values["ca"].replace("\\n", "\n"))
    registries: list[Registry] = []
    if url := values.get("registry"):
        registries += sources.registry(Kind.NPM, url, "registry")
    else:
        registries += _built_in(sources)
    for key, url in values.items():
        if scope := _SCOPE.fullmatch(key):
            registries += sources.registry(Kind.NPM, url, scope[1])
    return registries


def _values(sources: Sources) -> dict[str, str]:
    values: dict[str, str] = {}
    for file in _files(sources):
        for line in sources.text(file).splitlines():
            key, equals, value = line.partition("=")
            key, value = key.strip(), _unquoted(value.strip())
            if not equals or key[:1] in ("", ";", "#", "["):
                continue
            if key == "ca[]":
                values["ca"] = f"{values.get('ca', '')}{value}\n"
            elif key in ("registry", "cafile", "ca") or _SCOPE.fullmatch(key):
                values[key] = _expanded(value, sources)
    for name, value in sources.environment.items():
        if name.lower().startswith("npm_config_") and value:
            key = name[len("npm_config_") :].lower()
            if key in ("registry", "cafile", "ca") or _SCOPE.fullmatch(key):
                values[key] = value
    return values


def _unquoted(value: str) -> str:
    value = re.split(r"\s[;#]", value)[0].strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _expanded(value: str, sources: Sources) -> str:
    """`${NAME}` in the part that names the host; elsewhere it is most likely a token, and stays."""
    head = re.match(r"^(\w+://)?[^/]*", value)
    end = head.end() if head else 0
    named = re.sub(
        r"\$\{(\w+)\??\}", lambda found: sources.environment.get(found[1], ""), value[:end]
    )
    return named + value[end:]


def _files(sources: Sources) -> Iterator[Path]:
    program = _program(sources)
    if program is not None:
        yield program.parent.parent / "npmrc"  # the packager's
    named = sources.variable("npm_config_globalconfig")
    if named and named.startswith("/"):
        yield Path(named)
    else:
        prefix = sources.variable("npm_config_prefix")
        if prefix and prefix.startswith("/"):
            yield Path(prefix, "etc/npmrc")
        elif program is not None:
            yield from (
                parent.parent / "etc/npmrc" for parent in program.parents if parent.name == "lib"
            )
        yield sources.system("etc/npmrc")
    user = sources.variable("npm_config_userconfig")
    yield Path(user) if user and user.startswith("/") else sources.user(".npmrc")


def _program(sources: Sources) -> Path | None:
    found = shutil.which("npm", path=sources.environment.get("PATH", ""))
    return Path(os.path.realpath(found)) if found else None


def _built_in(sources: Sources) -> list[Registry]:
    program = _program(sources)
    places = [sources.system(f"usr/share/nodejs/{_DEFINITIONS}")]
    if program is not None:
        places.insert(0, program.parent.parent / "node_modules" / _DEFINITIONS)
    for place in places:
        if found := _BUILT_IN.search(sources.text(place)):
            return sources.registry(Kind.NPM, found[1], "registry", configured=False)
    return []
