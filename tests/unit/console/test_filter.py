"""What a guest prints reaches the screen, but not the clipboard, the title or the keyboard."""

from __future__ import annotations

import pytest

from sandbox_rpc.console.filter import MAX_SEQUENCE, Filter

HARMLESS = [
    b"plain text\r\n",
    "caf\u00e9 \u2713 \U0001f600".encode(),
    b"\x1b[31mred\x1b[0m",
    b"\x1b[38;2;1;2;3mtrue colour\x1b[m",
    b"\x1b[2J\x1b[H\x1b[?25l\x1b[?1049h",
    b"\x1b[10;20H\x1b[K",
    b"\x1b7\x1b8\x1bM\x1b(B\x1b=",
    b"bell \x07 backspace \x08 tab \t",
]
HARMFUL = {
    "clipboard": b"\x1b]52;c;ZWNobyBoaQ==\x07",
    "clipboard, other end": b"\x1b]52;c;ZWNobyBoaQ==\x1b\\",
    "title": b"\x1b]0;evil\x07",
    "colour query": b"\x1b]11;?\x07",
    "attributes query": b"\x1b[c",
    "secondary attributes": b"\x1b[>c",
    "cursor report": b"\x1b[6n",
    "window title report": b"\x1b[21t",
    "terminal parameters": b"\x1b[x",
    "mode query": b"\x1b[?2004$p",
    "version query": b"\x1b[>q",
    "keyboard query": b"\x1b[?u",
    "status string": b"\x1bP$qm\x1b\\",
    "application command": b"\x1b_Gi=1,a=q\x1b\\",
    "privacy message": b"\x1b^x\x1b\\",
    "identify": b"\x1bZ",
    "answerback": b"\x05",
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


def test_an_endless_sequence_does_not_swallow_the_console() -> None:
    """A title that never ends is given up, and text is text again."""
    guard = Filter()
    shown = guard.feed(b"\x1b]0;" + b"x" * (MAX_SEQUENCE + 100) + b"\r\nalive\r\n")
    assert shown.endswith(b"alive\r\n")


def test_a_sequence_inside_a_sequence() -> None:
    """Breaking one off by the next does not smuggle the next through."""
    assert Filter().feed(b"\x1b[3\x1b]52;c;eA==\x07ok") == b"ok"
    assert Filter().feed(b"\x1b[3\x18ok") == b"ok"
