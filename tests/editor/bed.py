"""A real VS Code for tests: code-server from npm, without what these tests have no use for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from release import npm
from release.npm import QUIET, WHEEL, environment, install, packages

CODE_SERVER = "4.139.1"
"""VS Code 1.139.1. The edits of `workbench.py` fit exactly this one, and say where they do not."""
NATIVE = ("@vscode/spdlog", "@vscode/native-watchdog")
"""What has to be compiled; the rest brings its binaries, or is not used."""
UNUSED = (
    "node_modules/@github", "node_modules/@microsoft/mxc-sdk", "node_modules/kerberos",
    "node_modules/@devcontainers", "node_modules/@vscode/tree-sitter-wasm", "extensions/copilot",
    "extensions/mermaid-markdown-features", "extensions/markdown-language-features",
    "extensions/microsoft-authentication", "extensions/ms-vscode.js-debug",
    "extensions/ms-vscode.vscode-js-profile-table", "extensions/markdown-math",
)  # fmt: skip
"""Half of it, which would be copied into guests."""
NODE = WHEEL / "bin" / "node"


def code_server() -> Path:
    """The folder of code-server; installed where it is missing, which takes a minute."""
    return install("code-server", {"code-server": CODE_SERVER}, _finish) / "code-server"


def _finish(modules: Path) -> None:
    editor = modules / "code-server" / "lib" / "vscode"
    npm.npm("install", "--omit=dev", "--ignore-scripts", *QUIET, cwd=editor)
    npm.npm("rebuild", *NATIVE, cwd=editor)
    for name in UNUSED:
        shutil.rmtree(editor / name, ignore_errors=True)
    for pattern in ("node_modules/*/prebuilds/*", "node_modules/@vscode/ripgrep-universal/bin/*"):
        for path in editor.glob(pattern):
            if path.name.split("-")[0] in ("win32", "darwin", "freebsd"):
                shutil.rmtree(path, ignore_errors=True)


def commit(folder: Path) -> str:
    """Which VS Code it is."""
    product = json.loads((folder / "lib/vscode/product.json").read_text())
    return str(product["commit"])


def pack(source: Path, out: Path) -> Path:
    """A test's own extension as a .vsix."""
    done = subprocess.run(
        [str(packages() / ".bin/vsce"), "package", "--no-dependencies", "--skip-license",
         "--allow-missing-repository", "--out", str(out)],
        cwd=source, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out
