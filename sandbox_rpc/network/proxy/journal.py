"""The audit: one JSON line for each request, and beside it what was refused lately.

    access.jsonl            the latest lines; access.1.jsonl ... the ones before
    blocked.json            refusals, equal ones counted together; replaced whole

No path, query, header or body is in them: these hold secrets.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ACCESS = "access.jsonl"
BLOCKED = "blocked.json"
MAX_BYTES = 8 << 20
"""Of one file, before the next one is begun."""
KEPT = 4
"""Files, the latest included."""
REMEMBERED = 50
"""Refusals in blocked.json."""
AGAIN_S = 60.0
"""Before the same refusal is news again."""
SCHEMA = 1


class Entry(NamedTuple):
    """One request, when it is over."""

    method: str
    host: str
    port: int
    allowed: bool
    rule: str | None
    """The line that decided."""
    reason: str = ""
    """Why it did not work, or was refused; empty where it did."""
    address: str | None = None
    """What was dialled."""
    sni: str | None = None
    status: int | None = None
    """Of the answer to the guest."""
    up: int = 0
    """Bytes from the guest."""
    down: int = 0
    """Bytes to the guest."""
    seconds: float = 0.0


class Refusal:
    """The same request, refused any number of times."""

    __slots__ = ("count", "entry", "sequence", "time", "told_at")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.count = 0
        self.sequence = 0
        self.time = ""
        self.told_at = -AGAIN_S


class Journal:
    """Writes both files; what the disk refuses is lost, the guest's traffic is not."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._refusals: OrderedDict[tuple[str, int, str], Refusal] = OrderedDict()
        self._sequence = time.time_ns() // 1000
        """Grows also from one process to the next."""
        self.is_stale = False
        """Whether blocked.json says less than there is to say."""
        self.lost = 0
        self._load()

    def write(self, entry: Entry) -> None:
        """Note a request that is over."""
        self._number += 1
        now = _now()
        fields: dict[str, Any] = {"time": now, "id": self._number}
        fields |= {
            name: value
            for name, value in entry._asdict().items()
            if value is not None and value != ""
        }
        fields["seconds"] = round(entry.seconds, 3)
        self._append(json.dumps(fields, separators=(",", ":")).encode() + b"\n")
        if not entry.allowed and entry.port:
            self._note(entry, now)

    def flush_blocked(self) -> None:
        """Write blocked.json anew."""
        self.is_stale = False
        events = [
            {
                "sequence": one.sequence, "time": one.time, "method": one.entry.method,
                "host": one.entry.host, "port": one.entry.port, "reason": one.entry.reason,
                "rule": one.entry.rule, "count": one.count,
            }
            for one in self._refusals.values()
        ]  # fmt: skip
        text = json.dumps({"schema": SCHEMA, "events": events})
        new = self._folder / f"{BLOCKED}.new"
        with suppress(OSError):
            new.write_text(text)
            os.replace(new, self._folder / BLOCKED)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        try:
            if self._file is None or self._size + len(line) > self._max_bytes:
                self._open()
            assert self._file is not None
            self._size += os.write(self._file, line)
        except OSError:
            self.lost += 1

    def _open(self) -> None:
        self.close()
        path = self._folder / ACCESS
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        self._size = os.fstat(descriptor).st_size
        if self._size and self._size + 4096 > self._max_bytes:
            os.close(descriptor)
            for number in range(KEPT - 1, 0, -1):
                before = path if number == 1 else _numbered(path, number - 1)
                with suppress(FileNotFoundError):
                    os.replace(before, _numbered(path, number))
            descriptor = os.open(path, flags, 0o600)
            self._size = 0
        self._file = descriptor

    def _note(self, entry: Entry, now: str) -> None:
        key = (entry.host, entry.port, entry.reason)
        refusal = self._refusals.pop(key, None) or Refusal(entry)
        self._refusals[key] = refusal
        if len(self._refusals) > REMEMBERED:
            self._refusals.popitem(last=False)
        refusal.count += 1
        refusal.time = now
        refusal.entry = entry
        if time.monotonic() - refusal.told_at >= AGAIN_S:
            # A program that asks every second is one piece of news.
            refusal.told_at = time.monotonic()
            self._sequence += 1
            refusal.sequence = self._sequence
        self.is_stale = True

    def _load(self) -> None:
        """Go on with what the process before has noted."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            for one in json.loads((self._folder / BLOCKED).read_text())["events"]:
                refusal = Refusal(
                    Entry(one["method"], one["host"], one["port"], False, one["rule"],
                          one["reason"])
                )  # fmt: skip
                refusal.count, refusal.time = int(one["count"]), str(one["time"])
                refusal.sequence = int(one["sequence"])
                self._refusals[one["host"], one["port"], one["reason"]] = refusal


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
