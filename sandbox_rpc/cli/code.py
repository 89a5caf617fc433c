"""`sandbox code`: the folder in an editor's remote window."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import urllib.parse

from sandbox_rpc.cli import window
from sandbox_rpc.cli.start import add_start_arguments

EDITORS = {"code": "vscode", "cursor": "cursor", "codium": "vscodium", "windsurf": "windsurf"}
"""Commands, and the schemes of their URLs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same as for `start`, and which editor."""
    add_start_arguments(parser)
    group = parser.add_mutually_exclusive_group()
    for editor in list(EDITORS)[1:]:
        group.add_argument(
            f"--{editor}", dest="editor", action="store_const", const=editor,
            help=f"open it in {editor.capitalize()} (default: VS Code)",
        )  # fmt: skip
    parser.set_defaults(editor="code")


def run(options: argparse.Namespace) -> int:
    """Run it; where the editor has a command, this process becomes it."""
    place = window.prepare(options)
    path = authority(place.alias) + urllib.parse.quote(place.folder)
    if (command := shutil.which(options.editor)) is not None:
        return window.become([command, "--folder-uri", f"vscode-remote://{path}"])
    return window.open_url(f"{EDITORS[options.editor]}://vscode-remote/{path}?windowId=_blank")


def authority(alias: str) -> str:
    """The authority of a remote window; editors write it small, so capitals are wrapped."""
    if re.fullmatch(r"[a-z0-9._-]+", alias) and not re.fullmatch(r"([0-9a-f]{2})+", alias):
        return f"ssh-remote+{alias}"
    value = json.dumps({"hostName": alias}, separators=(",", ":"))
    return f"ssh-remote+{value.encode().hex()}"
