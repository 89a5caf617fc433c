"""What `sandbox code` and `sandbox idea` share: a running sandbox that the user's SSH knows."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import frozen

from sandbox_rpc.cli.start import begin
from sandbox_rpc.host import names, paths
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SshUnreachable, ToolMissing
from sandbox_rpc.sandboxes import find, workspace
from sandbox_rpc.ssh import include

OPENERS = ("xdg-open", "gio", "wslview")
"""Programs that give a URL to whoever handles its scheme."""


@frozen
class Place:
    """What a window is to show."""

    alias: str
    folder: str
    """In the guest."""


def prepare(options: argparse.Namespace) -> Place:
    """Start the folder's sandbox, and make sure that plain `ssh` knows it.

    Raises:
        SshUnreachable: it does not, and may not be taught.
    """
    sandbox = begin(options)
    layout = Layout.of_user()
    record = names.read(layout, sandbox.name)
    introduce(layout, sandbox.name, ask=sys.stdin.isatty() and sys.stderr.isatty())
    return Place(sandbox.name, find.guest_folder(record, workspace.real_path(options.folder)))


def introduce(layout: Layout, alias: str, *, ask: bool) -> None:
    """Make sure that the user's SSH configuration has the alias; asks before it adds a line.

    Raises:
        SshUnreachable: it has not, and the user has not agreed.
    """
    home = paths.home() or Path("/")
    file = include.config_file(home)
    if include.knows(file, alias):
        return
    line = include.line(layout.ssh_config)
    if ask:
        print(
            f"Remote windows find sandboxes by {file}. This line at its top teaches it their\n"
            f"names, each with its pinned key and its own login key:\n\n    {line}\n",
            file=sys.stderr,
        )
        print("Add it? [Y/n] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("", "y", "yes"):
            include.add(file, layout.ssh_config)
            if include.knows(file, alias):
                return
    raise SshUnreachable(
        f"{file} does not know {alias}, so an editor cannot open it.",
        hint=f"Add this line at its top: {line}",
    )


def open_url(url: str) -> int:
    """Give a URL to the desktop; printed where there is none.

    Raises:
        ToolMissing: nothing here opens URLs.
    """
    for name in OPENERS:
        if (opener := shutil.which(name)) is not None:
            words = [opener, "open", url] if name == "gio" else [opener, url]
            return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    raise ToolMissing(
        "Nothing here opens URLs.", hint=f"Open this one by hand: {url}", tool="xdg-open"
    )


def become(argv: list[str]) -> int:
    """Turn into the editor."""
    sys.stdout.flush()
    os.execvp(argv[0], argv)
