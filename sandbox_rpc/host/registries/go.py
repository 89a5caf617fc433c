"""go: GOPROXY from the environment, the user's `go env -w`, or the toolchain's own go.env."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Kind, Registry


def read(sources: Sources) -> list[Registry]:
    """The module proxies, in their order; `direct` and `off` are none."""
    environment = sources.environment
    configured = True
    value = environment.get("GOPROXY")
    if not value:
        named = environment.get("GOENV", "")
        if named != "off":
            file = Path(named) if named.startswith("/") else sources.configuration("go/env")
            value = _setting(sources.text(file))
    if not value:
        configured = False
        program = shutil.which("go", path=environment.get("PATH", ""))
        if program:
            value = _setting(sources.text(Path(os.path.realpath(program)).parents[1] / "go.env"))
    return [
        registry
        for url in re.split(r"[,|]", value or "")
        for registry in (
            sources.registry(Kind.GO, url, "proxy", configured=configured)
            if url.strip() not in ("", "direct", "off")
            else []
        )
    ]


def _setting(text: str) -> str | None:
    found = re.findall(r"^\s*GOPROXY\s*=(.*)$", text, re.MULTILINE)
    return found[-1].strip().strip("\"'") if found else None
