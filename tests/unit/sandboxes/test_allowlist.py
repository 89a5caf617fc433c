"""A sandbox's allowlist and audit, without a machine: the files are all there is."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sandbox_rpc.host import files, names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.network.proxy.groups import ORDER
from sandbox_rpc.network.proxy.journal import Entry, Journal
from sandbox_rpc.protocol.errors import RuleInvalid, SettingInvalid
from sandbox_rpc.protocol.network import Blocked, NetworkLogEntry
from sandbox_rpc.sandboxes import allowlist, audit

LIMIT_S = 20


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty cache."""
    return Layout(tmp_path / "cache")


@pytest.fixture
def record(layout: Layout, tmp_path: Path) -> Record:
    """A sandbox that was started once."""
    workspace = tmp_path / "work"
    workspace.mkdir()
    return names.allot(layout, str(workspace), "box")


def test_a_new_one_has_the_lists(layout: Layout, record: Record) -> None:
    state = allowlist.status(layout, record)
    assert state.rules == [*ORDER]
    assert {one.name for one in state.lists if one.used} == {*ORDER}
    assert state.mode is None
    assert state.blocked == []
    home = layout.proxy("box")
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert home.allowlist.stat().st_mode & 0o777 == 0o600


def test_rules_come_and_go(layout: Layout, record: Record) -> None:
    changed = allowlist.allow(layout, record, ["Example.ORG", "*.example.net:8443"])
    assert changed.rules == [*ORDER, "example.org", "*.example.net:8443"]
    assert changed.notes == []
    changed = allowlist.block(layout, record, ["example.org"])
    assert changed.rules[-1] == "!example.org"
    assert "example.org" not in changed.rules
    changed = allowlist.block(layout, record, ["*.example.com"])
    changed = allowlist.allow(layout, record, ["a.example.com"])
    assert changed.notes == ["a.example.com stays blocked by the line !*.example.com."]
    changed = allowlist.reset(layout, record, ["example.org"])
    assert "!example.org" not in changed.rules
    layout.proxy("box").allowlist.write_text("# mine\n")
    assert allowlist.status(layout, record).rules == []
    assert allowlist.reset(layout, record).rules == [*ORDER]


def test_once_is_a_file_of_its_own(layout: Layout, record: Record) -> None:
    changed = allowlist.allow(layout, record, ["a.example"], once=True)
    assert changed.once == ["a.example"]
    assert "a.example" not in changed.rules
    changed = allowlist.block(layout, record, ["a.example"], once=True)
    assert changed.once == ["!a.example"]
    # What is said for good goes before.
    changed = allowlist.allow(layout, record, ["a.example"])
    assert changed.once == []
    assert changed.rules[-1] == "a.example"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([], "Between 1 and"), (["https://a.example/x"], "more than a host"),
        (["good.example", "a b"], "no host"), (["@nothing"], "no list"),
        (["!a.example"], "mark of a blocked"), (["127.1"], "number"), (["a.example:0"], "port"),
    ],
)  # fmt: skip
def test_bad_rules_change_nothing(
    layout: Layout, record: Record, rules: list[str], words: str
) -> None:
    before = allowlist.allow(layout, record, ["first.example"]).rules
    with pytest.raises(RuleInvalid, match=words) as caught:
        allowlist.allow(layout, record, rules)
    assert caught.value.hint or not rules
    assert allowlist.status(layout, record).rules == before


def test_lines_that_say_nothing_are_told(layout: Layout, record: Record) -> None:
    allowlist.status(layout, record)
    layout.proxy("box").allowlist.write_text("a.example\n\nhttp://b.example\n")
    (problem,) = allowlist.status(layout, record).problems
    assert (problem.file, problem.line) == ("allowlist.txt", 3)


def test_forgetting_a_sandbox_forgets_where_it_went(layout: Layout, record: Record) -> None:
    allowlist.allow(layout, record, ["a.example"])
    names.forget(layout, "box")
    assert not layout.proxy("box").folder.exists()


def write(journal: Journal, count: int, *, host: str = "a.example", allowed: bool = True) -> None:
    for _ in range(count):
        journal.write(Entry("CONNECT", host, 443, allowed, None, "" if allowed else "unlisted"))


def journal_of(layout: Layout, max_bytes: int = 8192) -> Journal:
    folder = layout.proxy("box").journal
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(folder, max_bytes)


def test_the_log_goes_back_over_files(layout: Layout, record: Record) -> None:
    assert audit.log(layout, record) == []
    journal = journal_of(layout)
    write(journal, 200)
    write(journal, 1, host="b.example", allowed=False)
    found = audit.log(layout, record, limit=90)
    assert [entry.id for entry in found] == list(range(112, 202))
    assert found[-1] == NetworkLogEntry(
        id=201, time=found[-1].time, method="CONNECT", host="b.example", port=443, allowed=False,
        reason="unlisted",
    )  # fmt: skip
    (blocked,) = audit.log(layout, record, only_blocked=True)
    assert blocked.host == "b.example"
    # Half a line, and one of a version that says more.
    with (layout.proxy("box").journal / "access.jsonl").open("a") as file:
        file.write('{"id": 1, "unknown": 2}\n{"id"')
    assert audit.log(layout, record, limit=1)[0].id == 201
    for limit in (0, 10_001):
        with pytest.raises(SettingInvalid):
            audit.log(layout, record, limit=limit)


@pytest.mark.anyio
async def test_the_log_is_followed_over_files(layout: Layout, record: Record) -> None:
    journal = journal_of(layout)
    write(journal, 3)
    found: list[int] = []
    began = anyio.Event()

    async def follow() -> None:
        entries = audit.follow(layout, record)
        began.set()
        async for entry in entries:
            found.append(entry.id)
            if entry.host == "end.example":
                return

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await began.wait()
            await anyio.sleep(0.2)  # it looks where the file ends, once it runs
            for _ in range(300):
                write(journal, 1)
                await anyio.lowlevel.checkpoint()
            write(journal, 1, host="end.example")
    assert found == list(range(4, 305))


@pytest.mark.anyio
async def test_refusals_are_news_once(layout: Layout, record: Record) -> None:
    home = layout.proxy("box")
    journal = journal_of(layout)
    write(journal, 1, host="old.example", allowed=False)
    journal.flush_blocked()
    told: list[Blocked] = []

    async def listen() -> None:
        async for event in audit.refusals(layout):
            told.append(event)
            if event.host == "end.example":
                return

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.sleep(0.2)
            for host in ("new.example", "new.example", "end.example"):
                write(journal, 1, host=host, allowed=False)
                journal.flush_blocked()
                await anyio.sleep(0.05)
    assert [event.host for event in told] == ["new.example", "end.example"]
    assert {event.name for event in told} == {"box"}
    files.replace(home.journal / "blocked.json", json.dumps({"events": "nonsense"}))
    assert allowlist.status(layout, record).blocked == []
