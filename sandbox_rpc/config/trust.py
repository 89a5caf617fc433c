"""Which content of a folder's sandbox.toml the user has accepted, kept outside the folder.

Trust is for one real path and one content: any change, also one the guest makes, ends it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
from pathlib import Path

from attrs import frozen

from sandbox_rpc.config import document, folder
from sandbox_rpc.config.setting import Folder, Value
from sandbox_rpc.host import paths
from sandbox_rpc.protocol.errors import SettingInvalid, SettingUntrusted

SCHEMA = 1


class Trust(enum.Enum):
    """What the user has said about a content."""

    NONE = "none"
    """Nothing."""
    CHANGED = "changed"
    """An earlier content was accepted."""
    GIVEN = "given"
    """It is accepted."""


@frozen
class Accepted:
    """What `sandbox trust` accepts, to be shown before and after."""

    file: str
    """The folder's file."""
    sha256: str
    """Its content."""
    values: dict[str, Value]
    """By key: what it may set from now on."""
    refused: list[str]
    """Keys in it that no folder can set."""
    unknown: list[str]
    """Keys in it that no setting has."""


def review(workspace: str) -> Accepted:
    """What `trust` would accept now.

    Raises:
        SettingInvalid: there is no file, or it cannot be used.
        PermissionDenied: it cannot be read.
    """
    workspace = os.path.realpath(workspace)
    file = folder.file_of(workspace)
    content = folder.read(workspace)
    if content is None:
        raise SettingInvalid(
            f"There is no {file}.",
            hint="Only a folder with such a file needs trust.",
            source=paths.FOLDER_FILE,
            file=file,
        )
    source = paths.FOLDER_FILE
    parsed = document.parse(content, file=file, source=source)
    values: dict[str, Value] = {}
    refused: list[str] = []
    for entry in parsed.entries:
        setting = entry.setting
        if setting.folder is Folder.NEVER:
            refused.append(setting.key)
        else:
            values[setting.key] = setting.check(
                entry.value, source=source, file=file, line=entry.line
            )
    unknown = [one.key for one in parsed.unknown]
    return Accepted(file, hashlib.sha256(content).hexdigest(), values, refused, unknown)


def trust(workspace: str, *, sha256: str | None = None) -> Accepted:
    """Accept the folder's file as it is now; with `sha256`, only as it was when reviewed.

    Raises:
        SettingInvalid: there is no file, or it cannot be used.
        SettingUntrusted: it has changed since the review, or what is accepted would be kept
            inside the folder itself.
    """
    workspace = os.path.realpath(workspace)
    accepted = review(workspace)
    if sha256 is not None and sha256 != accepted.sha256:
        raise SettingUntrusted(
            f"{accepted.file} has just changed.", hint="Read it again.", file=accepted.file
        )
    if _holds_our_files(workspace):
        raise SettingUntrusted(
            f"{workspace} contains {paths.config_base()}, where trust is kept: "
            "its guest could trust itself.",
            hint="Open a folder below it.",
            file=accepted.file,
        )
    from sandbox_rpc.host import files  # costs a tempfile, which a start need not pay

    record = paths.trust_file(workspace)
    with files.translated(record.parent):
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = {"schema": SCHEMA, "workspace": workspace, "sha256": accepted.sha256}
    files.replace(record, json.dumps(said, indent=2) + "\n")
    return accepted


def distrust(workspace: str) -> bool:
    """Forget what was accepted of the folder; whether there was anything."""
    from sandbox_rpc.host import files

    record = paths.trust_file(os.path.realpath(workspace))
    try:
        with files.translated(record):
            record.unlink()
    except FileNotFoundError:
        return False
    return True


def trust_in(workspace: str, content: bytes) -> Trust:
    """What the user has said about this content of the folder's file."""
    workspace = os.path.realpath(workspace)
    if _holds_our_files(workspace):
        return Trust.NONE
    try:
        said = json.loads(paths.trust_file(workspace).read_bytes())
    except (OSError, ValueError):  # unreadable is untrusted
        return Trust.NONE
    if not isinstance(said, dict):
        return Trust.NONE
    if said.get("schema") != SCHEMA or said.get("workspace") != workspace:
        return Trust.NONE
    same = said.get("sha256") == hashlib.sha256(content).hexdigest()
    return Trust.GIVEN if same else Trust.CHANGED


def is_trusted(workspace: str, content: bytes) -> bool:
    """Whether the user has accepted exactly this content of the folder's file."""
    return trust_in(workspace, content) is Trust.GIVEN


def _holds_our_files(workspace: str) -> bool:
    return Path(os.path.realpath(paths.config_base())).is_relative_to(workspace)
