"""The list of commands, their parsers, and which of them a command line means."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sandbox_rpc import __version__, cli
from sandbox_rpc.cli import commands, main, run

FOLDER = Path(cli.__path__[0])
NOT_COMMANDS = {"window", "__init__", "commands", "main", "run", "show", "target"}
"""Modules that commands share."""
ALL = [*commands.COMMANDS, *commands.HIDDEN, commands.DEFAULT]


def test_every_module_is_a_command_that_is_listed() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py")} - NOT_COMMANDS
    assert modules == {command.replace("-", "_") for command in ALL}


def test_usage_names_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    printed = capsys.readouterr().out
    listed = printed.partition("\ncommands:\n")[2]
    rows = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert rows == list(commands.COMMANDS)
    assert "connect" not in printed


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--kvm", "--help"]])
def test_help_has_several_spellings(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 0
    assert capsys.readouterr().out == commands.usage()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sandbox {__version__}\n"


@pytest.mark.parametrize("command", ALL)
def test_a_command_has_a_parser_with_help(command: str) -> None:
    parser = run.parser_of(commands.module_of(command), command)
    text = parser.format_help()
    assert text.startswith("usage: sandbox")
    for action in _actions(parser):
        assert action.help, f"{command}: {action.dest or action.option_strings} is not explained"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    # A sub-command's parser holds the help of its own arguments.
    named = [action for action in parser._actions if action.option_strings]
    return [action for action in named if not isinstance(action, argparse._SubParsersAction)]


@pytest.mark.parametrize(
    ("words", "command", "rest"),
    [
        ([], "up", []),
        (["start", "x"], "start", ["x"]),
        (["ls", "--all"], "list", ["--all"]),
        (["--kvm", "start"], "start", []),
        (["--kvm", "--kvm"], "up", []),
        (["connect", "n"], "connect", ["n"]),
        (["./start"], "up", ["./start"]),
        (["--memory", "1G", "folder"], "up", ["--memory", "1G", "folder"]),
        (["--", "make", "--help"], "up", ["--", "make", "--help"]),
    ],
)
def test_which_command_is_meant(
    words: list[str], command: str, rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []

    def note(module: object, name: str, words: list[str]) -> int:
        called.append((module, name, words))
        return 42

    monkeypatch.setattr(run, "command", note)
    assert main.main(words) == 42
    assert called == [(commands.module_of(command), command, rest)]
