"""`sandbox info`: how to reach a sandbox."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sandbox_rpc.cli import show
from sandbox_rpc.cli.status import value
from sandbox_rpc.cli.target import add_json, add_target
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.host.sockets import shortcut
from sandbox_rpc.ssh import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `info`."""
    add_target(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    layout = Layout.of_user()
    sandbox = value(layout, options.sandbox)
    if options.json:
        show.as_json(sandbox)
        return 0
    home = layout.home(sandbox.name)
    folder = config.alias_folder()
    socket = sandbox.console_socket
    network_log = layout.room(sandbox.name).network_log
    show.fields(
        [
            ("name", sandbox.name),
            ("state", str(sandbox.state)),
            ("workspace", sandbox.workspace),
            ("ssh", f"ssh -F {shlex.quote(str(home.ssh_config))} {sandbox.name}"),
            ("alias", f"ssh {sandbox.name}" if folder else None),
            (
                "include",
                None if folder else f'Include "{layout.ssh_config}"  (top of ~/.ssh/config)',
            ),
            ("console", f"sandbox console {sandbox.name}" if socket else None),
            (
                "socat",
                f"socat STDIO,raw,echo=0,escape=0x1d UNIX-CONNECT:{_short(socket)}"
                if socket
                else None,
            ),
            ("console log", sandbox.console_log),
            ("network log", str(network_log) if network_log.exists() else None),
            ("log", str(home.supervisor_log) if home.supervisor_log.exists() else None),
            ("last logs", str(home.last) if home.last.exists() else None),
        ]
    )
    return 0


def _short(socket: str) -> str:
    return shlex.quote(str(shortcut(Path(socket))))
