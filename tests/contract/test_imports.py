"""Who may know that there is a wire."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_rpc

WIRE = {"pygls", "lsprotocol"}
MODULES = sorted(
    ".".join(path.relative_to(Path(sandbox_rpc.__file__).parents[1]).with_suffix("").parts)
    for path in Path(sandbox_rpc.__file__).parent.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)


def loaded_by(*modules: str) -> set[str]:
    """The packages that are loaded after importing modules, in a process of its own."""
    script = (
        "import importlib, json, sys\n"
        f"for name in {list(modules)!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_nothing_but_the_server_loads_pygls() -> None:
    others = [name for name in MODULES if not name.startswith("sandbox_rpc.server.")]
    assert len(others) > 50
    assert not loaded_by(*others) & WIRE


def test_the_server_does() -> None:
    # Or the test above would find nothing whatever there is.
    assert loaded_by("sandbox_rpc.server.serve") >= WIRE


@pytest.mark.parametrize("module", ["sandbox_rpc.client", "sandbox_rpc.server.main"])
def test_what_is_loaded_before_anything_is_asked(module: str) -> None:
    assert not loaded_by(module) & {*WIRE, "paramiko", "asyncio"}
