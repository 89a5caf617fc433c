"""The linters, as tests: what they find is a failure like any other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.config.settings import BY_KEY

ROOT = Path(__file__).resolve().parents[1]


def lint(*argv: str) -> None:
    """Run a linter; what it says is the failure's message."""
    done = subprocess.run(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def shell_scripts() -> list[str]:
    """Files of this repository that begin with a shell's #! line or say `shellcheck shell=`."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    found = []
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            first = file.readline(100).decode(errors="replace")
        if (first.startswith("#!") and first.rstrip().endswith(("sh", "bash"))) or (
            "shellcheck shell=" in first
        ):
            found.append(name)
    return found


SCRIPTS = shell_scripts()


def test_ruff_finds_nothing() -> None:
    lint(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    lint(sys.executable, "-m", "ruff", "format", "--check", "--diff", ".")


def test_mypy_finds_nothing() -> None:
    lint(sys.executable, "-m", "mypy")


def test_the_scripts_are_found() -> None:
    assert {"bin/sandbox", "bin/test", "bin/setup.sh", ".ci/run"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shell_can_parse_it(script: str) -> None:
    first = (ROOT / script).read_text().splitlines()[0]
    lint("bash" if first.endswith("bash") else "sh", "-n", script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is not installed; bin/test installs it"
    lint(tool, "--external-sources", script)


def test_no_file_names_a_mirror_or_a_registry() -> None:
    # Each host has its own; a name written down here would be wrong for somebody.
    forbidden = [
        "deb." + "debian.org", "security." + "debian.org", "snapshot." + "debian.org",
        "pypi." + "org", "files." + "pythonhosted.org", "registry." + "npmjs.org",
        "crates." + "io", "ghcr." + "io", "docker." + "io",
    ]  # fmt: skip
    patterns = [word for name in forbidden for word in ("-e", name)]
    done = subprocess.run(
        ["git", "grep", "--untracked", "-n", "-F", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The image a start takes is a name we were given, as a project's is; no other of its host is.
    default = str(BY_KEY["image"].default).rpartition(":")[0]
    lines = [line.replace(default, "") for line in done.stdout.splitlines()]
    found = [line for line in lines if any(name in line for name in forbidden)]
    assert (found, done.stderr) == ([], "")
