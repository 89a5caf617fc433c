"""The editor extension without an editor: types, style, unit tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from release.npm import EXTENSION, ROOT, environment, packages


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the extension's folder with its packages, in a tree like ours."""
    root = tmp_path_factory.mktemp("extension")
    folder = root / EXTENSION.name
    shutil.copytree(EXTENSION, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(packages())
    (root / "tests").mkdir()
    shutil.copy2(ROOT / "tests/console-filter.json", root / "tests")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["tsc", "--noEmit", "-p", "."],
        ["biome", "ci", "--colors=off", "--error-on-warnings", "."],
        ["vitest", "run", "--reporter=default"],
    ],
    ids=["tsc", "biome", "vitest"],
)
def test_the_extension(project: Path, words: list[str]) -> None:
    """Each tool finds nothing."""
    done = subprocess.run(
        [str(project / "node_modules/.bin" / words[0]), *words[1:]],
        cwd=project, env={**environment(), "CI": "1", "NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
