"""Where settings come from: default < user < folder's sandbox.toml < flags.

The user's are in config.toml, and over it in the settings of an editor, which passes them on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import frozen

from sandbox_rpc.config import document, folder, trust
from sandbox_rpc.config.folder import FolderState
from sandbox_rpc.config.setting import Value, written
from sandbox_rpc.config.settings import BY_KEY, SETTINGS
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import paths
from sandbox_rpc.protocol.errors import PermissionDenied, SettingInvalid


class Origin(enum.StrEnum):
    """Who has set a setting."""

    DEFAULT = "default"
    """Nobody."""
    USER = "user"
    """The user's config.toml, or the user's settings in the client."""
    FOLDER = "folder"
    """The folder's sandbox.toml."""
    OVERRIDE = "override"
    """A flag, or a parameter of the request."""


@frozen
class Loaded:
    """The settings that hold, and how they came about."""

    settings: Settings
    """What holds."""
    origins: dict[str, Origin]
    """By key, for every setting: who has said so."""
    warnings: list[str]
    """What was ignored, and why; for people."""
    folder: FolderState
    """What became of the folder's file."""


def load(
    workspace: str | None,
    overrides: Mapping[str, object],
    *,
    user: Mapping[str, object] | None = None,
    source: str = "the command line",
) -> Loaded:
    """The settings for a workspace (a real path; None where none is concerned).

    `overrides` are by key, `source` is what to call them in errors. `user` are those that the user
    has set in the client for all sandboxes: they count as config.toml does, and go before it.

    Raises:
        SettingInvalid: a value or a file is wrong; the folder's file is not a plain file.
        PermissionDenied: a file cannot be read.
    """
    values: dict[str, Value] = {setting.key: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, Origin.DEFAULT)

    standing = _user() | check(user or {}, source="the client's settings")
    for key, value in standing.items():
        values[key], origins[key] = value, Origin.USER

    warnings: list[str] = []
    state = FolderState.ABSENT
    content = folder.read(workspace) if workspace is not None else None
    if workspace is not None and content is not None:
        file = folder.file_of(workspace)
        said = trust.trust_in(workspace, content)
        parsed = document.parse(content, file=file, source=paths.FOLDER_FILE)
        verdict = folder.judge(parsed, values, trusted=said is trust.Trust.GIVEN, file=file)
        state = verdict.state
        warnings += verdict.warnings
        if state is FolderState.UNTRUSTED and said is trust.Trust.CHANGED:
            warnings.append(f"{file} has changed since `sandbox trust`, so it is not trusted.")
        for key, value in verdict.values.items():
            if value != values[key]:
                values[key], origins[key] = value, Origin.FOLDER

    for key, value in check(overrides, source=source).items():
        values[key], origins[key] = value, Origin.OVERRIDE
    return Loaded(Settings.of(values), origins, warnings, state)


def check(overrides: Mapping[str, object], *, source: str) -> dict[str, Value]:
    """The checked values of settings that a flag or a request gives by key.

    Raises:
        SettingInvalid: an unknown key, or a wrong value.
    """
    checked: dict[str, Value] = {}
    for key, value in overrides.items():
        if key not in BY_KEY:
            raise SettingInvalid(
                f"There is no setting {written(key)} ({source}).",
                hint=_suggestion(document.nearest(key)),
                setting=key,
                source=source,
            )
        checked[key] = BY_KEY[key].check(value, source=source)
    return checked


def _user() -> dict[str, Value]:
    file = str(paths.config_file())
    source = paths.config_file().name
    try:
        content = paths.config_file().read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise PermissionDenied(
            f"Cannot read {file}.", hint="Make it readable, or remove it.", path=file
        ) from error
    except IsADirectoryError as error:
        raise SettingInvalid(
            f"Cannot use {file}: it is a folder.",
            hint="Replace it by a file.",
            source=source,
            file=file,
        ) from error
    parsed = document.parse(content, file=file, source=source)
    # A typing error must not silently leave a wall down, so here an unknown key is an error.
    for unknown in parsed.unknown:
        place = f"{file}, line {unknown.line}" if unknown.line else file
        raise SettingInvalid(
            f"There is no setting {unknown.key} ({place}).",
            hint=_suggestion(unknown.nearest),
            setting=unknown.key,
            source=source,
            file=file,
            **({"line": unknown.line} if unknown.line else {}),
        )
    return {
        entry.setting.key: entry.setting.check(
            entry.value, source=source, file=file, line=entry.line
        )
        for entry in parsed.entries
    }


def _suggestion(nearest: str | None) -> str:
    known = "docs/settings.md lists them all."
    return f"Did you mean {nearest}? {known}" if nearest else known
