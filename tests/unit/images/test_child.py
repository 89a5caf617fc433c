"""A process that moves images and does not do as it should."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import child
from sandbox_rpc.protocol.errors import DigestMismatch, DownloadFailed, ToolMissing
from sandbox_rpc.protocol.progress import Progress


def python(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another program be started in Python's place."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 3", "status 3"),
        ("exec <&-; echo 'no module' >&2; exit 1", "no module"),
        ("read -r x; echo nonsense; sleep 60", "ended"),
        ("read -r x; kill -9 $$", "status -9"),
        ("read -r x; head -c 3000000 /dev/zero", "ended"),
    ],
)
def test_one_that_dies_is_an_error(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    python(tmp_path, body, monkeypatch)
    with pytest.raises(DownloadFailed, match=said):
        anyio.run(child.run, layout, "pull")


def test_its_errors_are_ours_and_its_progress_is_told(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = '{"progress": {"phase": "image", "message": "m", "doneBytes": 5, "totalBytes": 9}}'
    error = '{"error": {"code": 1203, "message": "other", "data": {"kind": "digestMismatch"}}}'
    python(tmp_path, f"read -r x; echo '{progress}'; echo '{error}'", monkeypatch)
    told: list[Progress] = []
    with pytest.raises(DigestMismatch, match="other"):
        anyio.run(child.run, layout, "pull", told.append)
    assert told == [Progress("image", "m", done_bytes=5, total_bytes=9)]


def test_a_package_that_is_missing_is_said(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zstandard.py").write_text("raise ImportError('none', name='zstandard')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="zstandard"):
        anyio.run(lambda: child.run(layout, "check", ref="local/x"))
