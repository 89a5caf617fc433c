"""What a sandbox's guest left in the workspace for this host to run; also after its end."""

from __future__ import annotations

from datetime import UTC, datetime

from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import PermissionDenied
from sandbox_rpc.protocol.workspace import Change, Changes
from sandbox_rpc.supervisor.leftovers import begun
from sandbox_rpc.workspace.scan import scan


def changes(layout: Layout, record: Record) -> Changes:
    """Look through the workspace; blocks, some 20 s at most.

    Raises:
        PermissionDenied: the folder cannot be read.
    """
    started = begun(layout.home(record.name))
    if started is None or started.workspace != record.workspace:
        return Changes(record.name, record.workspace, [])
    try:
        result = scan(record.workspace, started.since_ns, started.before)
    except OSError as error:
        raise PermissionDenied(
            f"Cannot read {record.workspace}: {error.strerror}.", path=record.workspace
        ) from None
    since = datetime.fromtimestamp(started.since_ns / 1e9, UTC)
    return Changes(
        name=record.name,
        workspace=record.workspace,
        changes=[Change(one.path, one.why, one.by_itself, one.is_link) for one in result.found],
        since=since.isoformat(timespec="milliseconds"),
        complete=result.complete,
    )


def summary(found: Changes) -> str | None:
    """A sentence for the end of a life; None where there is nothing to say."""
    urgent = [one for one in found.changes if one.by_itself]
    links = [one for one in found.changes if one.link]
    parts = []
    if urgent:
        shown = ", ".join(dict.fromkeys(one.path for one in urgent[:3]))
        more = f" and {len(urgent) - 3} more" if len(urgent) > 3 else ""
        parts.append(f"wrote what programs here run by themselves: {shown}{more}")
    if links:
        parts.append(f"made {len(links)} links that lead out of the folder")
    if not parts:
        return None
    return f"Since its start somebody {' and '.join(parts)}. Look first: sandbox changes"
