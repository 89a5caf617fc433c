"""Which folder a name means, for good: name ↔ real path, both ways, until it is forgotten.

Without it tomorrow's `sandbox-app` could be another folder, and an alias, an allowlist or an
editor's "recent" entry would silently come to mean it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import NameInvalid, SandboxBusy, SandboxNotFound, StateNewer

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PREFIX = "sandbox-"
LONGEST_BASENAME = 40
SCHEMA = 1
RESERVED = frozenset({"lock", "by-path"})


@frozen
class Pin:
    """The image that a folder stays with."""

    ref: str
    """What the settings asked for."""
    digest: str
    """What it got."""
    chosen: str | None = None
    """What somebody had last chosen under this name by then; when that changes, the pin ends."""


@frozen
class Record:
    """What is remembered of a sandbox."""

    name: str
    workspace: str
    """Real path."""
    last_port: int | None = None
    """Tried first at the next start, so that a window that reconnects finds it."""
    overrides: dict[str, Any] = field(factory=dict)
    """Settings that the last start was given beside the files, by key: when the alias of a stopped
    sandbox starts it again, a read-only workspace must not come back writable."""
    user_settings: dict[str, Any] = field(factory=dict)
    """What the client of the last start had of the user's settings, for the same reason."""
    image: Pin | None = None
    """What it last started from."""
    schema: int = SCHEMA


def check(name: str) -> str:
    """The name, if it is one.

    Raises:
        NameInvalid: it is empty, too long, or has characters a file or host name cannot have.
    """
    if not NAME.fullmatch(name) or ".." in name or name in RESERVED:
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise NameInvalid(f"{shown!r} is not a name a sandbox can have.", name=shown)
    return name


def find(layout: Layout, real_path: str) -> str | None:
    """The name of the sandbox of this workspace."""
    try:
        name = layout.name_of_path(real_path).read_text(errors="replace")
    except FileNotFoundError:
        return None
    return name if NAME.fullmatch(name) else None


def read(layout: Layout, name: str) -> Record:
    """What is remembered of a sandbox.

    Raises:
        SandboxNotFound: nothing.
        StateNewer: a newer version wrote it.
    """
    check(name)
    path = layout.home(name).record
    try:
        data = json.loads(path.read_bytes())
        schema = data.get("schema", 0)
        if isinstance(schema, int) and schema > SCHEMA:
            raise StateNewer(f"{path} was written by a newer version.", path=str(path))
        return convert.from_wire(data, Record)
    except (FileNotFoundError, ValueError, AttributeError):
        raise SandboxNotFound(f"There is no sandbox {name}.", name=name) from None


def every(layout: Layout) -> list[Record]:
    """All that is remembered, by name."""
    records = []
    with suppress(FileNotFoundError):
        for folder in sorted(layout.names.iterdir()):
            if folder.name not in RESERVED and folder.is_dir():
                with suppress(SandboxNotFound, NameInvalid, StateNewer):
                    records.append(read(layout, folder.name))
    return records


def allot(layout: Layout, real_path: str, wanted: str | None = None) -> Record:
    """The record of this workspace, made where there is none.

    Raises:
        NameInvalid: `wanted` is no name.
        SandboxBusy: `wanted` means another folder, or the folder has another name.
    """
    if wanted is not None:
        check(wanted)
    with files.translated(layout.base):
        layout.make()
    with locks.held(layout.names_lock):
        if (known := find(layout, real_path)) is not None:
            with suppress(SandboxNotFound):
                record = read(layout, known)
                if wanted is not None and wanted != known:
                    raise SandboxBusy(
                        f"This folder is the workspace of {known}.",
                        hint=f"Use that name, or `sandbox forget {known}` first.",
                        name=known,
                    )
                return record
        name = _claim(layout, real_path, wanted)
        record = Record(name, real_path)
        write(layout, record)
        files.replace(layout.name_of_path(real_path), name)
        return record


def write(layout: Layout, record: Record) -> None:
    """Remember a record."""
    home = layout.home(record.name)
    with files.translated(home.folder):
        home.folder.mkdir(mode=0o700, exist_ok=True)
    files.replace(home.record, convert.dumps(record))


def remember_port(layout: Layout, name: str, port: int) -> None:
    """Note the port that SSH has now."""
    record = read(layout, name)
    if record.last_port != port:
        write(layout, attrs.evolve(record, last_port=port))


def remember_image(layout: Layout, name: str, pin: Pin) -> None:
    """Note the image of a start."""
    record = read(layout, name)
    if record.image != pin:
        write(layout, attrs.evolve(record, image=pin))


def remember_settings(
    layout: Layout, name: str, overrides: Mapping[str, object], user: Mapping[str, object]
) -> None:
    """Note the settings that a start was given beside the files."""

    def plain(settings: Mapping[str, object]) -> dict[str, object]:
        return {key: str(v) if isinstance(v, str) else v for key, v in settings.items()}

    record = read(layout, name)
    noted = attrs.evolve(record, overrides=plain(overrides), user_settings=plain(user))
    if record != noted:
        write(layout, noted)


def forget(layout: Layout, name: str) -> None:
    """Give name and folder up.

    Raises:
        SandboxNotFound: there is none.
        SandboxBusy: it runs.
    """
    record = read(layout, name)
    home = layout.home(name)
    with locks.held(layout.names_lock), ExitStack() as stack:
        for lock in (home.supervisor_lock, home.vm_lock):
            # Taken, not only asked for: a supervisor that starts now must not lose its folder.
            if (fd := locks.acquire(lock)) is None:
                raise SandboxBusy(
                    f"{name} is running.", hint=f"Stop it first: sandbox stop {name}", name=name
                )
            stack.callback(os.close, fd)
        layout.name_of_path(record.workspace).unlink(missing_ok=True)
        shutil.rmtree(layout.room(name).folder, ignore_errors=True)
        shutil.rmtree(layout.proxy(name).folder, ignore_errors=True)
        _open_up(home.persist)
        shutil.rmtree(home.folder, ignore_errors=True)


def _open_up(folder: Path) -> None:
    """Make all folders below one removable: the guest may have shut some to everybody."""
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                # A link of the guest's must not open a folder of the host's.
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    waiting.append(Path(entry.path))


def from_path(real_path: str) -> str:
    """The name a folder suggests: `sandbox-` and its basename, other characters as `_`."""
    base = os.path.basename(real_path) or "root"
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", base).replace("..", "._").strip("-")
    if len(clean) > LONGEST_BASENAME:
        digest = hashlib.sha256(os.fsencode(base)).hexdigest()[:8]
        clean = f"{clean[:LONGEST_BASENAME]}-{digest}"
    return PREFIX + (clean or "folder")


def _claim(layout: Layout, real_path: str, wanted: str | None) -> str:
    if wanted is not None:
        with suppress(SandboxNotFound):
            other = read(layout, wanted)
            if other.workspace != real_path:
                raise SandboxBusy(
                    f"{wanted} is the sandbox of {other.workspace}.",
                    hint=f"Choose another name, or `sandbox forget {wanted}` first.",
                    name=wanted,
                )
        return wanted
    base = from_path(real_path)
    for number in range(1, 10_000):
        name = base if number == 1 else f"{base}-{number}"
        if not layout.home(name).record.exists():
            return name
    raise NameInvalid(f"All names from {base} to {base}-9999 are taken.")
