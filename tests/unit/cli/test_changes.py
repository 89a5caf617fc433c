"""`sandbox changes`, and the sentence at a stop."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sandbox_rpc.cli import run
from sandbox_rpc.cli.commands import module_of
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.workspace import Change, Changes
from sandbox_rpc.sandboxes.changes import summary
from sandbox_rpc.supervisor import leftovers
from sandbox_rpc.supervisor.request import Place


def test_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SANDBOX_CACHE_BASE", str(tmp_path / "cache"))
    workspace = tmp_path / "work"
    workspace.mkdir()
    layout = Layout(tmp_path / "cache")
    names.allot(layout, str(workspace), "box")

    def changes(*words: str) -> int:
        return run.command(module_of("changes"), "changes", ["box", *words])

    assert changes() == 0
    assert "has not been started" in capsys.readouterr().out
    leftovers.begin(Place(layout, "box"), str(workspace))
    time.sleep(0.02)
    assert changes() == 0
    assert "Nothing since" in capsys.readouterr().out
    (workspace / ".envrc").write_text("x")
    (workspace / "out\x1b[2J").symlink_to("/etc")
    assert changes() == 1
    said = capsys.readouterr().out
    assert ".envrc  direnv runs it" in said
    assert "out\\x1b[2J" in said
    assert changes("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in found["changes"]] == [".envrc", "out\x1b[2J"]
    (layout.home("box").started).write_text("{")
    assert changes() == 0


def test_the_sentence_at_a_stop() -> None:
    def said(*changes: Change) -> str | None:
        return summary(Changes("box", "/w", list(changes)))

    assert said() is None
    assert said(Change("Makefile", "make runs it", False)) is None
    many = [Change(f"{n}/.envrc", "x", True) for n in range(5)]
    text = said(*many, Change("out", "leads to /", False, True))
    assert text is not None
    assert "0/.envrc, 1/.envrc, 2/.envrc and 2 more" in text
    assert "1 links" in text or "a link" in text
