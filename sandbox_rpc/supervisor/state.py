"""The one `Sandbox` value of a running machine: on disk, in the event log, to every listener."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs

from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Home, Room
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SandboxError, StateNewer
from sandbox_rpc.protocol.types import Sandbox, State

log = logging.getLogger(__name__)

SCHEMA = 1


def now() -> str:
    """The time as ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def next_revision(previous: int) -> int:
    """A larger number: milliseconds since 1970, so that it grows from life to life too."""
    return max(previous + 1, time.time_ns() // 1_000_000)


def load(room: Room) -> Sandbox | None:
    """The value as the last supervisor left it; None where there is none or it is damaged.

    Raises:
        StateNewer: a newer version wrote it.
    """
    try:
        data = json.loads(room.state.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise StateNewer(f"{room.state} was written by a newer version.", path=str(room.state))
    with suppress(convert.Misfit):
        return convert.from_wire(data, Sandbox)
    return None


class Store:
    """Holds the value and tells everyone when it changes."""

    def __init__(self, room: Room, sandbox: Sandbox) -> None:
        self._room = room
        self._listeners: dict[object, Callable[[Sandbox], None]] = {}
        self.sandbox = sandbox

    def change(self, **fields: Any) -> Sandbox:
        """Change fields, write the file, tell the listeners."""
        revision = next_revision(self.sandbox.revision)
        self.sandbox = attrs.evolve(self.sandbox, revision=revision, **fields)
        if self._room.folder.is_dir():
            try:
                files.replace(self._room.state, convert.dumps(self.sandbox))
            except (SandboxError, OSError) as error:
                # A full disk must not keep anyone from stopping the machine that has filled it.
                log.warning("the state cannot be written: %s", error)
            self._note(self.sandbox)
        for listener in list(self._listeners.values()):
            listener(self.sandbox)
        return self.sandbox

    def listen(self, key: object, listener: Callable[[Sandbox], None]) -> None:
        """Call `listener` at each change, until `unlisten`."""
        self._listeners[key] = listener

    def unlisten(self, key: object) -> None:
        """Stop calling the listener of `key`."""
        self._listeners.pop(key, None)

    def _note(self, sandbox: Sandbox) -> None:
        event = {
            "at": now(),
            "revision": sandbox.revision,
            "state": sandbox.state,
            "phase": sandbox.phase,
        }
        with suppress(OSError), self._room.events.open("a") as file:
            file.write(json.dumps(event) + "\n")


def clear(room: Room, home: Home, *, keep_logs: bool) -> None:
    """Remove what a machine leaves behind; its logs move to `Home.last` where they are wanted."""
    if keep_logs:
        with suppress(OSError):
            home.last.mkdir(mode=0o700, exist_ok=True)
        logs = (room.console_log, room.qemu_log, room.network_log, room.proxy_log, room.events)
        for path in logs:
            # QEMU could have put a link in its log's place; only plain files are kept.
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):
                    shutil.move(path, home.last / path.name)
    shutil.rmtree(room.folder, ignore_errors=True)


def leave_lost(room: Room, sandbox: Sandbox) -> None:
    """Leave only the value behind: why the machine was lost; on a full disk not even that."""
    value = attrs.evolve(
        sandbox, state=State.LOST, phase=None, ssh=None, pid=None,
        forwards=[], console_socket=None, console_log=None, revision=sandbox.revision + 1,
    )  # fmt: skip
    with suppress(SandboxError, OSError):
        room.folder.mkdir(mode=0o700, exist_ok=True)
        files.replace(room.state, convert.dumps(value))
