"""`sandbox status`."""

from __future__ import annotations

import argparse

from sandbox_rpc.cli import run as runner
from sandbox_rpc.cli import show
from sandbox_rpc.cli.target import add_json, add_target
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotFound
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes.find import find
from sandbox_rpc.sandboxes.status import of_folder, status

NOT_RUNNING = 3
"""Exit status where it is not running, as service managers have it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `status`."""
    add_target(parser)
    add_json(parser)


def value(layout: Layout, target: str | None) -> Sandbox:
    """The sandbox that is meant; a folder that never had one is a stopped one.

    Raises:
        SandboxNotFound: nobody knows the name.
    """
    try:
        record = find(layout, target).record
    except SandboxNotFound as error:
        if "path" not in error.details:
            raise
        return runner.work(of_folder, layout, target or ".", cancellable=False)
    return runner.work(status, layout, record, cancellable=False)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    sandbox = value(Layout.of_user(), options.sandbox)
    if options.json:
        show.as_json(sandbox)
    else:
        describe(sandbox)
    return 0 if sandbox.state is State.RUNNING else NOT_RUNNING


def describe(sandbox: Sandbox) -> None:
    """Print a sandbox for people."""
    failure = sandbox.failure
    show.fields(
        [
            ("name", sandbox.name),
            ("state", sandbox.state + (f" ({sandbox.phase})" if sandbox.phase else "")),
            ("why", f"{failure.message} {failure.hint or ''}".strip() if failure else None),
            ("workspace", sandbox.workspace),
            ("image", sandbox.image and f"{sandbox.image} ({(sandbox.image_digest or '')[:19]})"),
            ("accelerator", sandbox.accelerator),
            ("network", sandbox.network),
            ("memory", f"{sandbox.memory_mib} MiB" if sandbox.memory_mib else None),
            ("cpus", str(sandbox.cpus) if sandbox.cpus else None),
            ("disk", f"{sandbox.disk_mib} MiB" if sandbox.disk_mib else None),
            ("files", sandbox.workspace_security and f"9p, {sandbox.workspace_security}"),
            ("ssh", f"{sandbox.ssh.alias}, port {sandbox.ssh.port}" if sandbox.ssh else None),
            (
                "ports",
                ", ".join(
                    f"{one.host}:{one.host_port} to {one.guest_port}" for one in sandbox.forwards
                ),
            ),
            ("process", str(sandbox.pid) if sandbox.pid else None),
            ("started", sandbox.started_at),
        ]
    )
    for layer in sandbox.box:
        print(f"box.{layer.name}: {'on' if layer.active else 'OFF'}, {layer.detail}")
    show.warnings(sandbox)
