"""What is noted before a guest runs, so that what it left for the host to run can be told later."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

from attrs import field, frozen

from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Home
from sandbox_rpc.qemu.box import Box, Variant
from sandbox_rpc.qemu.view import protectable
from sandbox_rpc.supervisor.request import Place, StartRequest
from sandbox_rpc.workspace.scan import remember


@frozen
class Started:
    """A life's beginning."""

    since_ns: int
    """When, in ns since 1970."""
    workspace: str
    """Its folder; another one of the same name would be compared with this."""
    before: dict[str, str] = field(factory=dict)
    """What `workspace.scan.remember` knew."""


def begin(place: Place, workspace: str) -> None:
    """Note how the workspace is, before anything in the guest can write to it.

    Raises:
        PermissionDenied, DiskFull: it cannot be written down.
    """
    note = {
        "since_ns": time.time_ns(),
        "workspace": workspace,
        "before": remember(workspace),
    }
    files.replace(place.home.started, json.dumps(note))


def begun(home: Home) -> Started | None:
    """The beginning of the present or last life; None where there was none."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        note = json.loads(home.started.read_bytes())
        before = {str(path): str(text) for path, text in note["before"].items()}
        return Started(int(note["since_ns"]), str(note["workspace"]), before)
    return None


def protected(request: StartRequest, box: Box) -> tuple[tuple[str, ...], list[str]]:
    """The paths of the workspace that the guest can only read, and warnings."""
    wanted = request.settings.protected
    found, problems = protectable(request.workspace, wanted)
    if box.variant is not Variant.PLAIN or not found:
        return found, problems
    shown = ", ".join(map(os.path.basename, found[:5]))
    return (), [
        *problems,
        f"Without a view of its own (box.namespace) QEMU can write what `protect` names: {shown}.",
    ]
