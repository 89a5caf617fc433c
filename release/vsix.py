#!/usr/bin/env python3
"""Build the editor extension: kvm-sandbox.vsix, with the service in it as pure Python.

python release/vsix.py [OUT.vsix]      default: editor-extension/dist/kvm-sandbox.vsix

Run by a Python with this project installed (`.venv/bin/python`): the bundled packages are of the
versions it has, so what was tested is what is shipped. npm and pip are used as this host has them
configured; what npm brings is kept in the user's cache.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release.npm import EXTENSION, environment, packages  # noqa: E402

BUNDLED = (
    "anyio", "attrs", "cattrs", "h11", "idna", "inotify_simple", "lsprotocol", "pycdlib", "pygls",
    "shtab", "typing_extensions", "urllib3",
)  # fmt: skip
"""What start, stop, status and the console import; all pure Python. paramiko is not: its parts are
built for one processor and version of Python, and the extension offers to install it instead."""
MARK = "BUNDLE"
"""Lists the bundle's files with their digests; extensions of one mark share one copy."""
LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", "test", "bundled")
UNWANTED = ("__pycache__", "*.pyc", "bin", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def run(*argv: str, cwd: Path) -> None:
    """Run a tool; what it says is the error."""
    done = subprocess.run(
        argv, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}\n{done.stdout}{done.stderr}")


def bundle(target: Path) -> None:
    """The service and what it needs, as files that any Python from 3.11 on can run."""
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in BUNDLED]
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--target", str(target), "--no-deps", "--no-compile", "--only-binary", ":all:",
        "--platform", "any", "--implementation", "py", "--python-version", "3.11", *wanted,
        cwd=ROOT,
    )  # fmt: skip
    shutil.copytree(ROOT / "sandbox_rpc", target / "sandbox_rpc")
    for pattern in UNWANTED:
        for path in list(target.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    if compiled := [path for path in target.rglob("*") if path.suffix in (".so", ".pyd")]:
        raise SystemExit(f"not pure Python: {', '.join(map(str, compiled))}")
    found = sorted(path for path in target.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(target)}\n"
        for path in found
    ]
    (target / MARK).write_text("".join(lines))


def build(out: Path) -> None:
    """The whole extension."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vsix-") as name:
        work = Path(name) / "extension"
        shutil.copytree(EXTENSION, work, ignore=LEFT_OUT)
        shutil.copy2(ROOT / "LICENSE", work / "LICENSE")
        modules = packages()
        (work / "node_modules").symlink_to(modules)
        tools = modules / ".bin"
        run(
            str(tools / "esbuild"), "src/extension.ts", "--bundle", "--platform=node",
            "--format=cjs", "--target=node20", "--external:vscode", "--minify",
            "--outfile=dist/extension.js", cwd=work,
        )  # fmt: skip
        bundle(work / "bundled")
        # vsce would follow the link and take all of npm along.
        (work / "node_modules").unlink()
        run(
            str(tools / "vsce"), "package", "--no-dependencies", "--allow-missing-repository",
            "--no-rewrite-relative-links", "--out", str(out), cwd=work,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Build; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=EXTENSION / "dist/kvm-sandbox.vsix")
    options = parser.parse_args(arguments)
    build(options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
