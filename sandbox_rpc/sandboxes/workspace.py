"""Which folder may be shared, and what of it QEMU must not see."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from attrs import frozen

from sandbox_rpc.host import locks, names, paths
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import WorkspaceRefused


@frozen
class Workspace:
    """A folder that may be shared."""

    path: str
    """Real path."""
    masks: tuple[str, ...] = ()
    """Real paths below it that stay invisible: our own state and settings."""


def real_path(path: str) -> str:
    """The real path of a folder that can be shared at all.

    Raises:
        WorkspaceRefused: it is missing, no folder, unreadable, or no path.
    """
    if not path:
        # realpath("") is the current folder: an empty variable in a script would share it.
        raise WorkspaceRefused("No folder is named.", hint="`.` is the current one.", path=path)
    try:
        real = os.path.realpath(path, strict=True)
        is_folder = os.path.isdir(real)
    except (OSError, ValueError) as error:
        raise WorkspaceRefused(_cannot(path, error), hint=_hint(error), path=path) from None
    if not is_folder:
        raise WorkspaceRefused(
            f"{path} is not a folder.", hint="Name the folder that holds it.", path=path
        )
    if not os.access(real, os.R_OK | os.X_OK):
        raise WorkspaceRefused(
            f"{path} cannot be read by this user.", hint="Check its permissions.", path=path
        )
    return real


def admit(layout: Layout, path: str, *, force: bool = False) -> Workspace:
    """The folder as a workspace.

    Raises:
        WorkspaceRefused: it cannot be shared, or should not be and `force` is not set.
    """
    real = real_path(path)
    ours = [os.path.realpath(folder) for folder in (layout.base, paths.config_base())]
    for state in ours:
        if _within(real, state):
            # Not even with --force: the guest could rewrite its own disk and the host's settings.
            raise WorkspaceRefused(
                f"{path} lies in sandbox's own state ({state}).",
                hint="Share a project folder; not even --force shares this one.",
                path=path,
            )
    masks = tuple(state for state in ours if _within(state, real))
    if force:
        for mask in masks:
            # What does not exist cannot be masked, and the guest would be the one to make it.
            Path(mask).mkdir(mode=0o700, parents=True, exist_ok=True)
    else:
        home = paths.home()
        reason = None
        if real == "/":
            reason = "is the whole machine"
        elif home is not None and real == os.path.realpath(home):
            reason = "is the home folder, with keys and tokens in it"
        elif masks:
            reason = f"contains sandbox's own state ({masks[0]})"
        if reason:
            raise WorkspaceRefused(
                f"{path} {reason}.",
                hint="Share a project folder inside it; --force shares it all the same.",
                path=path,
            )
    return Workspace(real, masks)


def enclosing(layout: Layout, real: str) -> Record | None:
    """The running sandbox whose workspace is this folder or contains it, the innermost first."""
    folder = Path(real)
    for candidate in (folder, *folder.parents):
        if (name := names.find(layout, str(candidate))) is not None:
            home = layout.home(name)
            if locks.is_held(home.vm_lock) or locks.is_held(home.supervisor_lock):
                return names.read(layout, name)
    return None


def _within(inner: str, outer: str) -> bool:
    return Path(inner).is_relative_to(outer)


def _cannot(path: str, error: Exception) -> str:
    shown = path if len(path) <= 200 else f"{path[:197]}..."
    match error:
        case FileNotFoundError():
            return f"There is no folder {shown}."
        case OSError(errno=errno.ENAMETOOLONG):
            return f"The path is too long for this system ({len(os.fsencode(path))} bytes)."
        case OSError():
            return f"{shown} cannot be opened: {error.strerror}."
        case _:
            return f"{shown!r} is not a path: {error}."


def _hint(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Check the permissions of the folders above it."
    return "Check the path."
