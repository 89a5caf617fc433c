"""Which sandbox is meant: by name, by folder, or by a folder inside a running one."""

from __future__ import annotations

import os

from attrs import frozen

from sandbox_rpc.host import names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import NameInvalid, SandboxNotFound
from sandbox_rpc.sandboxes import workspace

GUEST_WORKSPACE = "/home/dev/workspace"


@frozen
class Found:
    """A sandbox that is known, and where in it the caller stands."""

    record: Record
    guest_folder: str
    """The folder in the guest that corresponds to the caller's."""


def find(layout: Layout, target: str | None) -> Found:
    """The sandbox that `target` means: a name, a folder, or None for the current folder.

    Raises:
        SandboxNotFound: the folder has none, or nobody knows the name.
        WorkspaceRefused: the folder does not exist.
    """
    if target is not None and "/" not in target and target not in (".", ".."):
        try:
            return Found(names.read(layout, target), GUEST_WORKSPACE)
        except NameInvalid:
            if not os.path.isdir(target):
                raise
        except SandboxNotFound:
            if not os.path.isdir(target):
                # `sandbox stop app` for sandbox-app: what people type.
                prefixed = names.PREFIX + target
                if names.NAME.fullmatch(prefixed) and layout.home(prefixed).record.exists():
                    return Found(names.read(layout, prefixed), GUEST_WORKSPACE)
                raise
    return by_folder(layout, target or os.curdir)


def by_folder(layout: Layout, folder: str) -> Found:
    """The sandbox of a folder: a running one that contains it, else its own.

    Raises:
        SandboxNotFound: it has none.
        WorkspaceRefused: it does not exist.
    """
    real = workspace.real_path(folder)
    record = workspace.enclosing(layout, real)
    if record is None:
        name = names.find(layout, real)
        if name is None:
            raise SandboxNotFound(
                f"The folder {real} has no sandbox.", hint="`sandbox start` makes one.", path=real
            )
        record = names.read(layout, name)
    return Found(record, guest_folder(record, real))


def guest_folder(record: Record, real: str) -> str:
    """Where a host folder inside the workspace lies in the guest."""
    relative = os.path.relpath(real, record.workspace)
    return GUEST_WORKSPACE if relative == "." else f"{GUEST_WORKSPACE}/{relative}"
