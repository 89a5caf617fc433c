"""`sandbox completion SHELL`: a script that completes commands, options and choices."""

from __future__ import annotations

import argparse

import shtab

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli.commands import COMMANDS, DEFAULT, module_of

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `completion`."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = 'bash: eval "$(sandbox completion bash)"'


def whole_parser() -> argparse.ArgumentParser:
    """One parser with all commands: what the shells are told."""
    parser = argparse.ArgumentParser(prog="sandbox", allow_abbrev=False)
    module_of(DEFAULT).add_arguments(parser)
    for action in list(parser._actions):
        # The folder argument would swallow the commands.
        if not action.option_strings:
            parser._remove_action(action)
    verbs = parser.add_subparsers()
    for name, what in COMMANDS.items():
        verbs.add_parser(name, help=what, parents=[_bare(name)])
    return parser


def _bare(name: str) -> argparse.ArgumentParser:
    parser = runner.parser_of(module_of(name), name)
    parser._remove_action(parser._actions[0])
    parser._option_string_actions.pop("-h")
    parser._option_string_actions.pop("--help")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run it."""
    print(shtab.complete(whole_parser(), options.shell))
    return 0
