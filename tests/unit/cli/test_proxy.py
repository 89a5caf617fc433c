"""What the words of `sandbox proxy` mean, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_rpc.cli import run
from sandbox_rpc.cli.commands import module_of
from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.network.proxy.journal import Entry, Journal


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A sandbox of the current folder."""
    monkeypatch.setenv("SANDBOX_CACHE_BASE", str(tmp_path / "cache"))
    monkeypatch.delenv("SANDBOX_CONTAINER", raising=False)
    workspace = tmp_path / "work"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    layout = Layout(tmp_path / "cache")
    names.allot(layout, str(workspace), "box")
    return layout


def proxy(*words: str) -> int:
    return run.command(module_of("proxy"), "proxy", list(words))


def test_allow_block_list_reset(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert proxy("allow", "a.example", "*.b.example") == 0
    assert capsys.readouterr().out == "a.example *.b.example: allowed.\n"
    assert proxy("block", "a.example", "-s", "box") == 0
    assert proxy("allow", "--once", "c.example") == 0
    assert capsys.readouterr().out.endswith("c.example: allowed until the sandbox stops.\n")
    assert proxy() == 0
    said = capsys.readouterr().out
    assert "@git  (git hosts)" in said
    assert "!a.example\n" in said
    assert "c.example  (until the sandbox stops)" in said
    assert "github.com" not in said
    assert proxy("list", "--all") == 0
    assert "    github.com\n" in capsys.readouterr().out
    assert proxy("remove", "a.example") == 0
    assert proxy("reset") == 0
    assert capsys.readouterr().out.endswith("the allowlist: as at first.\n")


def test_bad_words(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert proxy("allow", "https://a.example/") == 15
    assert "Write the host alone" in capsys.readouterr().err
    assert proxy("allow", "a.example", "-s", "nobody") == 11
    assert proxy("log", "-n", "0") == 11


def test_the_log(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    folder = layout.proxy("box").journal
    folder.mkdir(parents=True)
    journal = Journal(folder)
    journal.write(Entry("CONNECT", "a.example", 443, True, "a.example", up=10, down=20))
    journal.write(Entry("GET", "b.exam\x1b]0;ple", 80, False, None, "unlisted"))
    journal.close()
    assert proxy("log") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("CONNECT  a.example:443  ok  by a.example  10 up, 20 down")
    assert second.endswith("GET      b.exam\\x1b]0;ple:80  BLOCKED unlisted")
    assert proxy("log", "--blocked", "--json") == 0
    assert capsys.readouterr().out.count("\n") == 1
