"""What `sandbox/changes` says: what a guest left in the workspace for the host to run."""

from __future__ import annotations

from attrs import frozen


@frozen
class Change:
    """A file that makes a program of this host run something, or a link out of the folder."""

    path: str
    """Relative to the workspace."""
    why: str
    """Who runs it and when, or where it leads."""
    by_itself: bool
    """Whether that happens without anybody asking for it: an editor that opens the folder does."""
    link: bool = False
    """Whether it is a symbolic link that leads out of the workspace."""


@frozen
class Changes:
    """What was written since a sandbox started, by the guest or by anybody else."""

    name: str
    """The sandbox."""
    workspace: str
    """The folder."""
    changes: list[Change]
    """The dangerous ones first."""
    since: str | None = None
    """ISO 8601: the start of the present or last life; absent where there was none."""
    complete: bool = True
    """False where the folder is too large to have been looked at in whole."""
