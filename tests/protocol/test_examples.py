"""The recorded sessions: each message fits the protocol, and the server still says the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.protocol.check import EXAMPLES, ROOT, Line, problems, read
from tests.protocol.replay import replay

ALL = sorted(EXAMPLES.glob("*.jsonl"))
WITH_MACHINES = {"sandbox/exec", "console/attach", "image/build"}
"""Answered only where there is a machine, or after minutes: tests/vm replays these."""


def needs_a_machine(lines: list[Line]) -> bool:
    """Whether a session is for tests/vm."""
    if any(line.message.get("method") in WITH_MACHINES for line in lines):
        return True
    results = [line.message.get("result") for line in lines if line.sender == "server"]
    return any(isinstance(result, dict) and "ssh" in result for result in results)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_fits_the_protocol(path: Path) -> None:
    assert problems(read(path)) == []


def test_no_example_names_a_machine() -> None:
    for path in ALL:
        text = path.read_text()
        for word in (f"{Path.home()}/", str(ROOT), "/tmp/", "/home/"):
            # /home/dev is in the guest.
            assert word not in text.replace("/home/dev", ""), f"{path.name}: {word}"


@pytest.mark.parametrize(
    "path", [path for path in ALL if not needs_a_machine(read(path))], ids=lambda path: path.stem
)
def test_the_server_still_says_it(path: Path, tmp_path: Path) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    (work / "project").mkdir(parents=True)
    outcome = replay(
        read(path),
        [sys.executable, "-m", "sandbox_rpc", "--stdio"],
        {str(work): "WORK", str(cache): "CACHE"},
        env={**os.environ, "SANDBOX_CACHE_BASE": str(cache), "XDG_CONFIG_HOME": str(tmp_path)},
        limit_s=120,
    )
    assert outcome.differences == []
    assert problems(outcome.lines) == []
    assert outcome.status == 0
