"""TOML text with settings → the rows it names, with the lines that name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from sandbox_rpc.config.setting import Setting, written
from sandbox_rpc.config.settings import BY_KEY, SETTINGS, TABLES
from sandbox_rpc.protocol.errors import SettingInvalid

MAX_DOTS = 256
"""In one line. tomllib's time grows with the square of a dotted key: 64 KiB of it took 20 s."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*')"""
_NAME = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_NAME})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_NAME})[ \t]*=")
_POSITION = re.compile(r"\s*\(at line (\d+), column (\d+)\)")

Path = tuple[str, ...]


@frozen
class Entry:
    """What a file says about one setting."""

    setting: Setting
    """The row."""
    value: object
    """As TOML gives it; not checked."""
    line: int | None
    """Where, counted from 1; None where it could not be found."""


@frozen
class Unknown:
    """A key that names no setting."""

    path: Path
    """Its tables and its name, whatever was in them."""
    line: int | None
    """Where, counted from 1."""

    @property
    def key(self) -> str:
        """As TOML would write it, short and safe to print."""
        bare = re.compile(r"[A-Za-z0-9_-]{1,60}")
        return ".".join(part if bare.fullmatch(part) else written(part) for part in self.path)

    @property
    def nearest(self) -> str | None:
        """The setting that may have been meant."""
        return nearest(".".join(self.path))


@frozen
class Document:
    """A file of settings."""

    entries: list[Entry]
    """In the order of the table."""
    unknown: list[Unknown]
    """In the order of the file."""


def parse(content: bytes, *, file: str, source: str) -> Document:
    """Read TOML that anybody may have written.

    Raises:
        SettingInvalid: not TOML, with `file`, `line` and `column` where they are known, and
            `setting` where the line names one; or a table of settings that is no table.
    """
    import tomllib

    text = _text(content, file, source)
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.count(".") > MAX_DOTS:
            raise _broken("too many dots in one line", file, source, lines, number)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _broken("nested too deeply", file, source, lines) from None
    except ValueError as error:  # also of int(), for a number of thousands of digits
        if not isinstance(error, tomllib.TOMLDecodeError):
            raise _broken("a number that is too long", file, source, lines) from None
        problem = str(error)
        if found := _POSITION.search(problem):
            problem = problem[: found.start()]
            line_number, column = int(found[1]), int(found[2])
            raise _broken(problem, file, source, lines, line_number, column) from None
        raise _broken(problem, file, source, lines) from None

    places = _places(lines)
    entries: list[Entry] = []
    unknown: list[Unknown] = []
    for path, value in _leaves(data, ()):
        line_of_key = _line(places, path)
        if path in TABLES:
            key = ".".join(path)
            place = f"{file}, line {line_of_key}" if line_of_key else file
            raise SettingInvalid(
                f"{key} cannot be {written(value)} in {place}: it is a table.",
                hint=f"Write [{key}] on a line of its own, and its settings below.",
                setting=key,
                source=source,
                file=file,
                **({"line": line_of_key} if line_of_key else {}),
            )
        # By path and not by key: the one key "box.filter", in quotes, is not filter in [box].
        setting = next((setting for setting in SETTINGS if setting.path == path), None)
        if setting is None:
            unknown.append(Unknown(path, line_of_key))
        else:
            entries.append(Entry(setting, value, line_of_key))
    entries.sort(key=lambda entry: SETTINGS.index(entry.setting))
    return Document(entries, unknown)


def nearest(key: str) -> str | None:
    """The setting that may have been meant by `key`; also where only its table was left out."""
    import difflib

    last = {setting.path[-1]: setting.key for setting in reversed(SETTINGS)}
    name = key[:100].replace("-", "_").lower()
    names = {key.lower(): key for key in (*BY_KEY, *last)}
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return last.get(found[0], found[0]) if found else None


def _text(content: bytes, file: str, source: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _broken("not UTF-8", file, source, [], line) from None
    return text


def _broken(
    problem: str,
    file: str,
    source: str,
    lines: list[str],
    line: int | None = None,
    column: int | None = None,
) -> SettingInvalid:
    details: dict[str, object] = {"source": source, "file": file}
    place = file
    if line is not None:
        details["line"] = line
        place += f", line {line}"
        if line <= len(lines) and (found := _ASSIGNMENT.match(lines[line - 1])):
            table = ""
            for above in lines[:line]:
                if header := _HEADER.match(above):
                    table = f"{header[1]}."
            if (key := table + found[1]) in BY_KEY:
                details["setting"] = key
                problem += f", at {key}"
    if column is not None:
        details["column"] = column
        place += f", column {column}"
    return SettingInvalid(
        f"Cannot read {place}: {problem[:1].lower() + problem[1:]}.",
        hint="Correct the file; it must be TOML.",
        **details,
    )


def _leaves(table: Mapping[str, object], above: Path) -> Iterator[tuple[Path, object]]:
    # Goes down into tables of settings only, so what a hostile file nests is never walked.
    for name, value in table.items():
        path = (*above, name)
        if path in TABLES and isinstance(value, dict):
            yield from _leaves(value, path)
        else:
            yield path, value


def _parts(name: str) -> Path:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, name))


def _places(lines: list[str]) -> dict[Path, int]:
    # tomllib keeps no positions. A text of several lines that looks like an assignment can be
    # taken for one here, which costs a wrong line number in a message and nothing else.
    places: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(lines, 1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            places.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            path = (*table, *_parts(assignment[1]))
            for end in range(len(table) + 1, min(len(path), 4) + 1):
                places.setdefault(path[:end], number)
    return places


def _line(places: dict[Path, int], path: Path) -> int | None:
    # An inline table holds several keys in the line of its own name.
    return next(
        (places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places), None
    )
