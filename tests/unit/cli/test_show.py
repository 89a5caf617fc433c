"""How values and progress look."""

from __future__ import annotations

import io
import json
import sys

import pytest

from sandbox_rpc.cli import show
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.protocol.types import Sandbox, State


class Screen(io.StringIO):
    """Stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/a project", "/home/me/a project"),
        ("/tmp/ünïcode", "/tmp/ünïcode"),
        ("a\nb", "a\\x0ab"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\udcff", "\\xff"),  # a byte that is not UTF-8, as Python decodes paths
        ("", ""),
    ],
)
def test_a_path_is_one_harmless_line(text: str, shown: str) -> None:
    assert show.printable(text) == shown
    assert show.printable(text).isprintable()


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show.table([["NAME", "STATE"], ["a-long-name", "x"]])
    assert capsys.readouterr().out == "NAME         STATE\na-long-name  x\n"


def test_fields_leave_out_what_is_absent(capsys: pytest.CaptureFixture[str]) -> None:
    show.fields([("name", "x"), ("port", None), ("longer", "y")])
    assert capsys.readouterr().out == "name    x\nlonger  y\n"


def test_no_fields_are_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    show.fields([("port", None)])
    assert capsys.readouterr().out == ""


def test_json_is_the_value_of_the_wire(capsys: pytest.CaptureFixture[str]) -> None:
    show.as_json(Sandbox("sandbox-x", State.STOPPED, "/x", memory_mib=512))
    value = json.loads(capsys.readouterr().out)
    assert value["name"] == "sandbox-x"
    assert value["state"] == "stopped"
    assert value["memoryMib"] == 512


def test_progress_without_a_terminal_is_one_line_for_each_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ticker = show.Ticker()
    for percentage in (1, 2, 3):
        ticker(Progress("image", "Downloading packages", percentage))
    ticker(Progress("image", "Unpacking packages"))
    ticker.clear()
    assert capsys.readouterr().err == "Downloading packages ...\nUnpacking packages ...\n"


def test_progress_on_a_terminal_is_one_line_that_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    ticker = show.Ticker()
    ticker(Progress("boot", "Waiting " + "very " * 20, 42))
    ticker.clear()
    text = screen.getvalue()
    assert "42%  Waiting" in text
    assert "\n" not in text
    assert text.endswith("\r\x1b[K")
    drawn = text.removeprefix("\r\x1b[K").removesuffix("\r\x1b[K")
    assert len(drawn) < 40


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    ticker = show.Ticker(quiet=True)
    ticker(Progress("boot", "Waiting"))
    ticker.clear()
    assert capsys.readouterr() == ("", "")
