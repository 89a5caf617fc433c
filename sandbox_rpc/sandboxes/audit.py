"""What went through a sandbox's proxy: the latest lines, those to come, and refusals as news."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.host.watch import open_watch
from sandbox_rpc.network.proxy.journal import ACCESS, BLOCKED, KEPT
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.protocol.network import Blocked, NetworkLogEntry
from sandbox_rpc.sandboxes.allowlist import blocked

MOST = 10_000
CHUNK = 1 << 16


def log(
    layout: Layout, record: Record, *, limit: int = 100, only_blocked: bool = False
) -> list[NetworkLogEntry]:
    """The latest entries of the audit, the latest last.

    Raises:
        SettingInvalid: the limit is none.
    """
    if not 0 < limit <= MOST:
        raise SettingInvalid(f"limit is {limit}, between 1 and {MOST} it may be.", setting="limit")
    found: list[NetworkLogEntry] = []
    for path in _files(layout.proxy(record.name).journal):
        for line in _lines_backwards(path):
            entry = _entry(line)
            if entry is not None and not (only_blocked and entry.allowed):
                found.append(entry)
                if len(found) == limit:
                    return found[::-1]
    return found[::-1]


async def follow(layout: Layout, record: Record) -> AsyncIterator[NetworkLogEntry]:
    """The entries that come from now on."""
    journal = layout.proxy(record.name).journal
    path = journal / ACCESS
    with open_watch() as watch:
        # The folder comes into being with the first start of a proxy.
        journal.mkdir(mode=0o700, parents=True, exist_ok=True)
        watch.add_folder(journal, written=True)
        file = _opened(path)
        if file is not None:
            watch.add_file(file)
            os.lseek(file, 0, os.SEEK_END)
        rest = b""
        try:
            while True:
                if file is not None:
                    while data := os.read(file, CHUNK):
                        *lines, rest = (rest + data).split(b"\n")
                        for line in lines:
                            if (entry := _entry(line)) is not None:
                                yield entry
                await watch.next()
                if file is None or _is_other(file, path):
                    if file is not None:
                        # What came in before it was replaced.
                        for line in (rest + _all(file)).split(b"\n"):
                            if (entry := _entry(line)) is not None:
                                yield entry
                        os.close(file)
                    rest, file = b"", _opened(path)
                    if file is not None:
                        watch.add_file(file)
        finally:
            if file is not None:
                os.close(file)


async def refusals(layout: Layout) -> AsyncIterator[Blocked]:
    """Each refusal of each sandbox that is news, from now on; the same one only now and then."""
    layout.proxies.mkdir(mode=0o700, parents=True, exist_ok=True)
    told: dict[str, int] = {}

    def fresh(name: str) -> Iterator[Blocked]:
        events = blocked(layout.proxy(name), name)
        for event in sorted(events, key=lambda one: one.sequence):
            if event.sequence > told.get(name, 0):
                told[name] = event.sequence
                yield event

    with open_watch() as watch:

        def add(name: str) -> None:
            watch.add_folder(layout.proxy(name).folder)
            watch.add_folder(layout.proxy(name).journal)

        watch.add_folder(layout.proxies)
        for folder in layout.proxies.iterdir():
            add(folder.name)
            list(fresh(folder.name))
        while True:
            names = set()
            for path, _ in await watch.next():
                if path == Path("/"):
                    names |= {folder.name for folder in layout.proxies.iterdir()}
                elif path.is_relative_to(layout.proxies) and path != layout.proxies:
                    name = path.relative_to(layout.proxies).parts[0]
                    if path.name == BLOCKED or path.parent == layout.proxies or path.name == "log":
                        names.add(name)
            for name in sorted(names):
                add(name)
                for event in fresh(name):
                    yield event


def _files(journal: Path) -> list[Path]:
    path = journal / ACCESS
    older = [path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, KEPT)]
    return [path, *older]


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with suppress(OSError), path.open("rb") as file:
        # A few MiB at most: read whole.
        yield from reversed(file.read().split(b"\n"))


def _entry(line: bytes) -> NetworkLogEntry | None:
    if not line:
        return None
    try:
        fields: dict[str, Any] = json.loads(line)
        return NetworkLogEntry(**fields)
    except (ValueError, TypeError):
        return None  # half a line of a process that was killed, or of a newer version


def _opened(path: Path) -> int | None:
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return None


def _is_other(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    mine = os.fstat(file)
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


def _all(file: int) -> bytes:
    found = b""
    while data := os.read(file, CHUNK):
        found += data
    return found
