"""What a guest prints reaches the screen, but not the clipboard, the title or the keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_rpc.console.filter import MAX_SEQUENCE, Filter

EXAMPLES = json.loads((Path(__file__).parents[2] / "console-filter.json").read_text())
"""Shared with the editor's filter; text is Latin-1."""
HARMLESS = [text.encode("latin-1") for text in EXAMPLES["harmless"]]
HARMFUL = {name: text.encode("latin-1") for name, text in EXAMPLES["harmful"].items()}
CLEANED = {
    name: (text.encode("latin-1"), left.encode("latin-1"))
    for name, (text, left) in EXAMPLES["cleaned"].items()
}


@pytest.mark.parametrize("data", HARMLESS)
def test_screen_output_passes(data: bytes) -> None:
    """Text, colours and cursor movement come through unchanged."""
    assert Filter().feed(data) == data


@pytest.mark.parametrize("name", HARMFUL)
def test_the_rest_is_dropped(name: str) -> None:
    """And only that: what stands around it stays."""
    assert Filter().feed(b"a" + HARMFUL[name] + b"b") == b"ab"


@pytest.mark.parametrize("name", HARMFUL)
def test_wherever_it_is_cut(name: str) -> None:
    """A sequence in pieces is the same sequence."""
    guard = Filter()
    data = b"a" + HARMFUL[name] + b"\x1b[1mb"
    assert b"".join(guard.feed(data[i : i + 1]) for i in range(len(data))) == b"a\x1b[1mb"


@pytest.mark.parametrize("name", CLEANED)
def test_what_is_left(name: str) -> None:
    """Where a part of it is text, or what a terminal obeys inside a sequence; in pieces as well."""
    data, left = CLEANED[name]
    guard = Filter()
    assert Filter().feed(b"a" + data + b"b") == b"a" + left + b"b"
    assert b"".join(guard.feed(bytes([byte])) for byte in data + b"b") == left + b"b"


def test_an_endless_sequence_does_not_swallow_the_console() -> None:
    """A title that never ends is given up, and text is text again."""
    guard = Filter()
    shown = guard.feed(b"\x1b]0;" + b"x" * (MAX_SEQUENCE + 100) + b"\r\nalive\r\n")
    assert shown.endswith(b"alive\r\n")


def test_a_sequence_inside_a_sequence() -> None:
    """Breaking one off by the next does not smuggle the next through."""
    assert Filter().feed(b"\x1b[3\x1b]52;c;eA==\x07ok") == b"ok"
    assert Filter().feed(b"\x1b[3\x18ok") == b"ok"
