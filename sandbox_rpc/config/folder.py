"""The folder's sandbox.toml: read as the hostile file it may be, and allowed only to tighten."""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Mapping

from attrs import frozen

from sandbox_rpc.config.document import Document, Entry
from sandbox_rpc.config.setting import Folder, Value, written
from sandbox_rpc.host import paths
from sandbox_rpc.protocol.errors import PermissionDenied, SettingInvalid

MAX_BYTES = 64 * 1024
"""Far above any honest file."""
SHOWN = 5
"""Unknown keys named in the warning: a hostile file can have thousands."""


class FolderState(enum.StrEnum):
    """What became of the folder's file."""

    ABSENT = "absent"
    """There is none."""
    TIGHTENED = "tightened"
    """It asks for nothing that a folder may not have."""
    TRUSTED = "trusted"
    """The user has accepted it as it is now."""
    UNTRUSTED = "untrusted"
    """It asks for more; that part is ignored."""


@frozen
class Verdict:
    """What holds of a folder's file."""

    entries: dict[str, Entry]
    """By key: what it sets."""
    values: dict[str, Value]
    """By key: the checked values of `entries`."""
    warnings: list[str]
    """One for each thing that was ignored."""
    state: FolderState
    """How it was taken."""


def file_of(workspace: str) -> str:
    """Where a workspace's file is."""
    return os.path.join(workspace, paths.FOLDER_FILE)


def read(workspace: str) -> bytes | None:
    """The file's content; None where there is none.

    The guest can put anything there at any time, so nothing but a regular file is opened: opening
    a FIFO waits, opening a device acts, and a symbolic link leads out of the workspace.

    Raises:
        SettingInvalid: it is no regular file, or larger than `MAX_BYTES`.
        PermissionDenied: it cannot be read.
    """
    file = file_of(workspace)
    try:
        # O_PATH takes hold of whatever is there without opening it.
        handle = os.open(file, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _unreadable(file) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _refused(file, "not a regular file", "Replace it by a regular file.")
        try:
            fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise _unreadable(file) from error
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):  # removed in this very moment
                return None
            raise
    finally:
        os.close(handle)
    with os.fdopen(fd, "rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _refused(
            file, f"larger than {MAX_BYTES // 1024} KiB", "Settings need a few lines: shorten it."
        )
    return content


def judge(document: Document, base: Mapping[str, Value], *, trusted: bool, file: str) -> Verdict:
    """Decide which settings of the folder's file hold over `base`, which has every key.

    Raises:
        SettingInvalid: a value that the setting can never have.
    """
    entries: dict[str, Entry] = {}
    values: dict[str, Value] = {}
    warnings: list[str] = []
    wider = False
    for entry in document.entries:
        setting = entry.setting
        place = f"{file}, line {entry.line}" if entry.line else file
        said = f"{setting.key} = {written(entry.value)}"
        if setting.folder is Folder.NEVER:
            # Before the check: how a value that cannot count is written does not matter.
            warnings.append(
                f"{place}: {said} is ignored: a folder can never set it, trusted or not. "
                f"Set it in {paths.config_file()} or with {setting.flag}."
            )
            continue
        value = setting.check(entry.value, source=paths.FOLDER_FILE, file=file, line=entry.line)
        now = base[setting.key]
        if not trusted and not _may(entry, value, now):
            wider = True
            warnings.append(
                f"{place}: {said} is ignored: it is not the folder's to decide "
                f"(now {setting.key} = {written(now)}). "
                "Read the file; `sandbox trust` accepts it as it is."
            )
            continue
        entries[setting.key] = entry
        values[setting.key] = value
    if document.unknown:
        warnings.append(_unknown(document, file))
    if trusted:
        state = FolderState.TRUSTED
    else:
        state = FolderState.UNTRUSTED if wider else FolderState.TIGHTENED
    return Verdict(entries, values, warnings, state)


def _may(entry: Entry, value: Value, now: Value) -> bool:
    match entry.setting.folder:
        case Folder.FREE:
            return True
        case Folder.TIGHTEN:
            return entry.setting.permits(value, now)
        case _:
            return value == now


def _unknown(document: Document, file: str) -> str:
    def said(key: str, line: int | None, nearest: str | None) -> str:
        notes = [f"line {line}"] if line else []
        notes += [f"did you mean {nearest}?"] if nearest else []
        return f"{key} ({', '.join(notes)})" if notes else key

    shown = [said(one.key, one.line, one.nearest) for one in document.unknown[:SHOWN]]
    if more := len(document.unknown) - len(shown):
        shown.append(f"and {more} more")
    return f"{file}: ignored, since no such setting is known: {', '.join(shown)}."


def _refused(file: str, problem: str, hint: str) -> SettingInvalid:
    return SettingInvalid(
        f"Cannot use {file}: {problem}.", hint=hint, source=paths.FOLDER_FILE, file=file
    )


def _unreadable(file: str) -> PermissionDenied:
    return PermissionDenied(
        f"Cannot read {file}.", hint="Make it readable, or remove it.", path=file
    )
