"""TOML of settings, honest and hostile."""

from __future__ import annotations

import pytest

from sandbox_rpc.config import document
from sandbox_rpc.config.document import Document
from sandbox_rpc.protocol.errors import SettingInvalid


def parse(content: bytes) -> Document:
    return document.parse(content, file="/w/sandbox.toml", source="sandbox.toml")


def found(content: bytes) -> list[tuple[str, object, int | None]]:
    return [(entry.setting.key, entry.value, entry.line) for entry in parse(content).entries]


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (b"", []),
        (b"# nothing\n", []),
        (b'memory = "2G"\n', [("memory", "2G", 1)]),
        (b"\xef\xbb\xbfcpus = 1\r\n", [("cpus", 1, 1)]),
        (b"\n\n  cpus=1", [("cpus", 1, 3)]),
        (b"[box]\nfilter = 'off'", [("box.filter", "off", 2)]),
        (b"[ box ]\n\nfilter = 'off'", [("box.filter", "off", 3)]),
        (b"box . filter = 'off'", [("box.filter", "off", 1)]),
        (b"'box'.\"filter\" = 'off'", [("box.filter", "off", 1)]),
        (b"\nbox = {filter = 'off'}", [("box.filter", "off", 2)]),
        (b"image = {a = 1}", [("image", {"a": 1}, 1)]),
        (b"[image]\na = 1", [("image", {"a": 1}, 1)]),
        (
            b"[ssh]\nautostart = false\n[box]\nfilter = 'off'\n",
            [("box.filter", "off", 4), ("ssh.autostart", False, 2)],
        ),
    ],
)
def test_settings_are_found_with_their_lines(
    content: bytes, entries: list[tuple[str, object, int | None]]
) -> None:
    assert found(content) == entries


@pytest.mark.parametrize(
    ("content", "key", "line", "nearest"),
    [
        (b"memroy = 1", "memroy", 1, "memory"),
        (b"\ncpu = 1", "cpu", 2, "cpus"),
        (b"[workspace]\nreadonly = true", "workspace.readonly", 2, "workspace.read_only"),
        (b"[workspace]\nread-only = true", "workspace.read-only", 2, "workspace.read_only"),
        (b"read_only = true", "read_only", 1, "workspace.read_only"),
        (b"[box]\nx = 1", "box.x", 2, None),
        (b"[zebra]\nx = 1", "zebra", 1, None),
        (b"[[zebra]]\nx = 1", "zebra", 1, None),
        (b'"box.filter" = "off"', '"box.filter"', 1, "box.filter"),
        (b'"a\\u001b[31m" = 1', '"a\\u001b[31m"', None, None),
    ],
)
def test_unknown_keys_are_found_with_what_was_meant(
    content: bytes, key: str, line: int | None, nearest: str | None
) -> None:
    parsed = parse(content)
    assert parsed.entries == []
    assert [(one.key, one.line, one.nearest) for one in parsed.unknown] == [(key, line, nearest)]


@pytest.mark.parametrize("table", ["box", "workspace", "ssh"])
def test_a_table_cannot_be_a_value(table: str) -> None:
    for content in (f"\n{table} = true", f"\n[[{table}]]"):
        with pytest.raises(SettingInvalid, match="it is a table") as caught:
            parse(content.encode())
        assert caught.value.details["setting"] == table
        assert caught.value.details["line"] == 2


@pytest.mark.parametrize(
    ("content", "details"),
    [
        (b"cpus = 1\nmemory = \n", {"line": 2, "column": 10, "setting": "memory"}),
        (b"cpus = 1\ncpus = 2\n", {"line": 2, "column": 9, "setting": "cpus"}),
        (b"[box]\nfilter = off\n", {"line": 2, "column": 10, "setting": "box.filter"}),
        (b"zebra = off\n", {"line": 1, "column": 9}),
        (b"cpus = [1", {}),
        (b"memory = '\0'", {"line": 1, "column": 11, "setting": "memory"}),
        (b"\0" * 100, {"line": 1, "column": 1}),
        (b"cpus = 1\n# \xff\xfe\n", {"line": 2}),
        (b"\xff\xfec\0p\0u\0s\0", {"line": 1}),
        (b"image = '\xed\xa0\x80'", {"line": 1}),
        (b"cpus = " + b"9" * 5000, {}),
        (b"cpus = " + b"[" * 60_000, {}),
        (b"cpus = " + b"{a=" * 20_000, {}),
        (b".".join([b"a"] * 30_000) + b" = 1", {"line": 1}),
        (b"\n[" + b".".join([b"a"] * 30_000) + b"]", {"line": 2}),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_not_toml_says_where(content: bytes, details: dict[str, object]) -> None:
    with pytest.raises(SettingInvalid, match=r"^Cannot read /w/sandbox\.toml") as caught:
        parse(content)
    expected = {"source": "sandbox.toml", "file": "/w/sandbox.toml", **details}
    assert caught.value.details == expected
    assert caught.value.hint
    assert len(caught.value.message) < 200
    assert caught.value.message.isprintable()


def test_a_deep_table_that_is_no_setting_is_not_walked() -> None:
    depth = document.MAX_DOTS
    parsed = parse(b".".join([b"a"] * depth) + b" = 1\n")
    assert [one.key for one in parsed.unknown] == ["a"]


def test_a_line_inside_a_text_costs_at_most_a_wrong_number() -> None:
    assert found(b'image = """\ncpus = 7\n"""\ncpus = 1\n')[0][:2] == ("cpus", 1)
