"""What one setting is: its kind and range, its flag, its words, and who may set it."""

from __future__ import annotations

import enum
import json
import math
import os
import re

from attrs import frozen

from sandbox_rpc.config import size
from sandbox_rpc.protocol.errors import SettingInvalid

Value = bool | int | float | str
"""What a setting can hold; choices are members of their `StrEnum`, which are strings."""


class Kind(enum.Enum):
    """What a value is, and how it is written."""

    SIZE = "size"
    """MiB, an int; written as a number of MiB or as `"2G"`."""
    COUNT = "whole number"
    SECONDS = "seconds"
    """A float; written as a number."""
    BOOL = "true or false"
    CHOICE = "one of"
    TEXT = "text"
    PATH = "path"
    """An absolute path, or a bare name to be looked up on PATH."""
    FILE = "file"
    """An absolute path."""


class Folder(enum.Enum):
    """What the folder's `sandbox.toml` may do to a setting. The guest can write that file."""

    FREE = "free"
    """Set it to anything."""
    TIGHTEN = "tighten"
    """Only move it towards less; anything else needs `sandbox trust`."""
    TRUST = "trust"
    """Nothing before `sandbox trust`."""
    NEVER = "never"
    """Nothing, trusted or not: host paths, host commands, keys, QEMU arguments."""


class _Unfit(ValueError):
    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@frozen(kw_only=True)
class Setting:
    """One row of the table."""

    key: str
    """Path in a TOML file: `workspace.read_only` is `read_only` in `[workspace]`."""
    kind: Kind
    """What its values are."""
    default: Value
    """What holds where nobody says anything."""
    folder: Folder
    """What the folder's file may do to it."""
    flag: str
    """Command-line flag; a bool also has its `--no-` form."""
    shortcuts: tuple[tuple[str, Value], ...] = ()
    """Further flags, each for one value."""
    is_list: bool = False
    """Whether a TEXT is a list with commas; TOML may write a list of texts, and the flag may be
    given several times."""
    metavar: str | None = None
    """What the flag's argument is called in help; choices name themselves."""
    commands: tuple[str, ...] = ("start",)
    """Commands that take the flag."""
    help: str
    """One line, a noun phrase."""
    doc: str
    """The rest, for the manual; Markdown."""
    choices: type[enum.StrEnum] | None = None
    """The values of a CHOICE."""
    loosest_first: tuple[Value, ...] = ()
    """For TIGHTEN: the values in the order of growing tightness; empty: the smaller the tighter, of
    a list the longer."""
    minimum: int = 0
    """Smallest number."""
    maximum: int = 0
    """Largest number."""
    pattern: str = ""
    """What a TEXT that is not empty must match in full."""
    pattern_hint: str = ""
    """How to write such a text."""

    def __attrs_post_init__(self) -> None:
        assert (self.kind is Kind.CHOICE) == (self.choices is not None), self.key
        assert self.maximum > self.minimum or self.unit is None, self.key
        assert self.check(self.default, source="default") == self.default, self.key
        if self.folder is Folder.TIGHTEN:
            values: set[Value] = set(self.choices or ()) or {False, True}
            ordered = self.unit is not None or self.is_list
            assert bool(self.loosest_first) != ordered, self.key
            assert ordered or set(self.loosest_first) == values, self.key

    @property
    def path(self) -> tuple[str, ...]:
        """The key as TOML sees it: tables, then the name."""
        return tuple(self.key.split("."))

    @property
    def attribute(self) -> str:
        """Its name in `Settings`, with the unit: `memory_mib`, `start_timeout_s`."""
        suffix = {Kind.SIZE: "_mib", Kind.SECONDS: "_s"}.get(self.kind, "")
        return self.key.replace(".", "_") + suffix

    @property
    def unit(self) -> str | None:
        """What its number counts; None where it is no number. A COUNT counts itself: empty."""
        return {Kind.SIZE: "MiB", Kind.SECONDS: "seconds", Kind.COUNT: ""}.get(self.kind)

    def permits(self, value: Value, bound: Value) -> bool:
        """Whether `value` is no wider than `bound`: what a TIGHTEN folder may say."""
        if self.loosest_first:
            return self.loosest_first.index(value) >= self.loosest_first.index(bound)
        if isinstance(value, str) and isinstance(bound, str):
            return set(filter(None, bound.split(","))) <= set(value.split(","))
        assert not isinstance(value, str), self.key
        assert not isinstance(bound, str), self.key
        return value <= bound

    def from_text(self, text: str) -> object:
        """What the words of a command line mean; `check` is still to come.

        A command line knows its working directory, so a relative path is made absolute here.
        """
        match self.kind:
            case Kind.COUNT if re.fullmatch(r"[0-9]{1,12}", text):
                return int(text)
            case Kind.SECONDS if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
                return float(text)
            case Kind.PATH | Kind.FILE if "/" in text or (text and self.kind is Kind.FILE):
                return os.path.abspath(os.path.expanduser(text))
        return text

    def check(
        self, value: object, *, source: str, file: str | None = None, line: int | None = None
    ) -> Value:
        """The value in its final type; the one place where values are judged.

        Raises:
            SettingInvalid: with `setting`, `source` and, where it was read from one, `file` and
                `line`.
        """
        try:
            return _READERS[self.kind](self, value)
        except _Unfit as unfit:
            where = f" in {file}" + (f", line {line}" if line else "") if file else ""
            by = "" if file else f" ({source})"
            raise SettingInvalid(
                f"{self.key} cannot be {written(value)}{where}{by}: {unfit.problem}.",
                hint=unfit.hint,
                setting=self.key,
                source=source,
                **({"file": file} if file else {}),
                **({"line": line} if line else {}),
            ) from None


def written(value: object) -> str:
    """A value as TOML writes it, short and without anything a terminal would act on."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(str(value))
            return text if len(text) <= 80 else text[:76] + '…"'
        case int():
            # Python refuses to print very long numbers, and nobody wants to read them.
            return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
        case float():
            return f"{value:g}"
        case dict():
            return "a table"
        case list():
            return "a list"
    return f"a {type(value).__name__}"


def _in_range(setting: Setting, number: int | float, hint: str) -> None:
    def said(bound: int) -> str:
        return size.show(bound) if setting.kind is Kind.SIZE else f"{bound} {setting.unit}".strip()

    if number < setting.minimum:
        raise _Unfit(f"less than {said(setting.minimum)}", hint)
    if number > setting.maximum:
        raise _Unfit(f"more than {said(setting.maximum)}", hint)


def _size(setting: Setting, value: object) -> Value:
    hint = 'Write a number of MiB, or a size in quotes: "512M", "2G", "1.5G".'
    if isinstance(value, str):
        try:
            value = size.parse(value)
        except ValueError:
            raise _Unfit("not a size", hint) from None
    if type(value) is not int:
        raise _Unfit("not a size", hint)
    _in_range(setting, value, hint)
    return value


def _count(setting: Setting, value: object) -> Value:
    hint = f"Write a whole number from {setting.minimum} to {setting.maximum}, without quotes."
    if type(value) is not int:
        raise _Unfit("not a whole number", hint)
    _in_range(setting, value, hint)
    return value


def _seconds(setting: Setting, value: object) -> Value:
    hint = f"Write a number of seconds up to {setting.maximum}, without quotes."
    if type(value) is not int and type(value) is not float:
        raise _Unfit("not a number of seconds", hint)
    if type(value) is float and not math.isfinite(value):
        raise _Unfit("not a number of seconds", hint)
    _in_range(setting, value, hint)
    return float(value)


def _bool(setting: Setting, value: object) -> Value:
    if type(value) is not bool:
        raise _Unfit("neither true nor false", "Write true or false, without quotes.")
    return value


def _choice(setting: Setting, value: object) -> Value:
    assert setting.choices is not None
    if not isinstance(value, str) or value not in [*setting.choices]:
        listed = ", ".join(setting.choices)
        raise _Unfit("not one of its values", f"Use one of: {listed}.")
    return setting.choices(value)


def _plain_text(value: object, hint: str) -> str:
    if not isinstance(value, str):
        raise _Unfit("not a text", hint)
    if len(value) > 4096:
        raise _Unfit("longer than 4096 characters", hint)
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise _Unfit("it has control characters", hint)
    return value


def _text(setting: Setting, value: object) -> Value:
    hint = setting.pattern_hint or "Write a text in quotes."
    if setting.is_list and isinstance(value, list):
        if not all(isinstance(item, str) and "," not in item for item in value):
            raise _Unfit("a list of something else than texts", hint)
        value = ",".join(value)
    text = _plain_text(value, hint)
    if not text and setting.default and not setting.is_list:
        raise _Unfit("empty", hint)
    if text and setting.pattern and not re.fullmatch(setting.pattern, text, re.ASCII):
        raise _Unfit("not of the right form", hint)
    return text


def _path(setting: Setting, value: object) -> Value:
    may_be_bare = setting.kind is Kind.PATH
    hint = "Write an absolute path, or one that starts with ~/."
    if may_be_bare:
        hint = "Write an absolute path, one that starts with ~/, or a name to look up on PATH."
    path = os.path.expanduser(_plain_text(value, hint))
    is_bare = may_be_bare and "/" not in path
    if path and not is_bare and not os.path.isabs(path):
        raise _Unfit("a relative path", hint)
    return path


_READERS = {
    Kind.SIZE: _size,
    Kind.COUNT: _count,
    Kind.SECONDS: _seconds,
    Kind.BOOL: _bool,
    Kind.CHOICE: _choice,
    Kind.TEXT: _text,
    Kind.PATH: _path,
    Kind.FILE: _path,
}
