"""The audit's files: rotated, counted, taken over by the next process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sandbox_rpc.network.proxy.journal import ACCESS, BLOCKED, KEPT, REMEMBERED, Entry, Journal


def entry(host: str = "a.test", *, allowed: bool = True, reason: str = "") -> Entry:
    return Entry("GET", host, 80, allowed, None, reason)


def lines(folder: Path) -> list[int]:
    """The numbers of all lines that are kept, the oldest first."""
    found: list[int] = []
    for number in range(KEPT, -1, -1):
        path = folder / (f"access.{number}.jsonl" if number else ACCESS)
        if path.exists():
            found += [json.loads(line)["id"] for line in path.read_text().splitlines()]
    return found


def test_it_grows_no_further_than_it_may(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=8192)
    for _ in range(1000):
        journal.write(entry())
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["access.1.jsonl", "access.2.jsonl", "access.3.jsonl", ACCESS]
    assert all(path.stat().st_size <= 8192 for path in tmp_path.iterdir())
    kept = lines(tmp_path)
    assert kept == list(range(kept[0], 1001))
    journal.close()
    after = Journal(tmp_path, max_bytes=8192)
    after.write(entry())
    assert lines(tmp_path)[-1] == 1
    after.close()


def test_refusals_are_counted_and_news_only_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    journal = Journal(tmp_path)

    def told() -> list[tuple[str, int, int]]:
        journal.flush_blocked()
        events = json.loads((tmp_path / BLOCKED).read_text())["events"]
        return [(one["host"], one["count"], one["sequence"]) for one in events]

    for _ in range(5):
        journal.write(entry(allowed=False, reason="unlisted"))
    assert journal.is_stale
    (first,) = told()
    assert first[:2] == ("a.test", 5)
    clock += 61
    journal.write(entry(allowed=False, reason="unlisted"))
    journal.write(entry(allowed=False, reason="port"))
    journal.write(entry())
    again, other = told()
    assert again[1] == 6
    assert first[2] < again[2] < other[2]
    journal.close()
    # The next process goes on counting, and what it tells is newer.
    after = Journal(tmp_path)
    after.write(entry(allowed=False, reason="unlisted"))
    after.flush_blocked()
    events = {one["reason"]: one for one in json.loads((tmp_path / BLOCKED).read_text())["events"]}
    assert events["unlisted"]["count"] == 7
    assert events["unlisted"]["sequence"] > other[2]
    for number in range(REMEMBERED * 2):
        after.write(entry(f"{number}.test", allowed=False, reason="unlisted"))
    after.flush_blocked()
    assert len(json.loads((tmp_path / BLOCKED).read_text())["events"]) == REMEMBERED
    after.close()


def test_a_disk_that_refuses_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    journal = Journal(folder)
    journal.write(entry())
    journal.write(entry(allowed=False, reason="unlisted"))
    journal.flush_blocked()
    assert journal.lost == 2
    folder.mkdir()
    (folder / BLOCKED).write_text('{"events": [1')
    Journal(folder).write(entry())
    assert lines(folder) == [1]
