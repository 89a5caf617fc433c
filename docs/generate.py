#!/usr/bin/env python3
"""Write docs/settings.md, docs/errors.md and the editor's settings from the tables in the source.

python docs/generate.py            writes them
python docs/generate.py --check    prints what would change; exit status 1 where anything would
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs import editor  # noqa: E402
from sandbox_rpc.config import size  # noqa: E402
from sandbox_rpc.config.setting import Folder, Kind, Setting, written  # noqa: E402
from sandbox_rpc.config.settings import SETTINGS  # noqa: E402
from sandbox_rpc.protocol.errors import ERRORS, SandboxError, kind_of  # noqa: E402

COMMAND = "python docs/generate.py"

SETTINGS_HEAD = f"""\
<!-- Written by `{COMMAND}` from sandbox_rpc/config/settings.py; changes here are lost. -->

# Settings

A later one wins:

1. the default;
2. your own file, `~/.config/sandbox/config.toml` (`$XDG_CONFIG_HOME/sandbox/config.toml`), and over
   it your own settings in an editor that has them;
3. the folder's file, `sandbox.toml` in the workspace;
4. flags on the command line, or parameters of a request.

Both files are TOML:

```toml
memory = "4G"

[workspace]
read_only = true
```

**The folder's file.** The guest can write it, so it may only make a sandbox smaller or stricter
than 1 and 2 do. Whatever goes further is ignored with a warning until you have read the file and
said `sandbox trust`. Trust is for the file as it is at that moment: any change, also one the guest
makes, ends it. Some settings no folder can make, trusted or not. The column "The folder may" says
which is which.

Wrong values, and unknown keys in your own file, are errors that name the file and the line. Unknown
keys in a folder's file are ignored with a warning: it may have been written for a newer version.

Sizes are a number of MiB, or a text with a unit of 1024: `"512M"`, `"1.5G"`, `"2GiB"`. On the
command line nothing needs quotes: `--memory 4G`.
"""

ERRORS_HEAD = f"""\
<!-- Written by `{COMMAND}` from sandbox_rpc/protocol/errors.py; changes here are lost. -->

# Errors

Every error has a code and a kind, which stay as they are for good, a message that says what
happened and, where something can be done, a hint. In a JSON-RPC response they are `code`,
`data.kind`, `message` and `data.hint`; further fields of `data` belong to the error. The command
line prints message and hint and exits with the status of the table. Where one case has a better
hint than the general one here, the error carries that.
"""


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def flag(setting: Setting) -> str:
    """The flag as it is typed."""
    if setting.kind is Kind.BOOL:
        text = f"`{setting.flag}`, `{setting.flag.replace('--', '--no-', 1)}`"
    else:
        text = f"`{setting.flag}{f' {setting.metavar}' if setting.metavar else ''}`"
    for short, value in setting.shortcuts:
        text += f", `{short}` for `{written(value)}`"
    if "start" not in setting.commands:
        text += " of " + ", ".join(f"`sandbox {command}`" for command in setting.commands)
    return text


def default(setting: Setting) -> str:
    """The default as TOML writes it."""
    if setting.kind is Kind.SIZE:
        assert isinstance(setting.default, int)
        return f"`{written(size.show(setting.default))}`"
    if isinstance(setting.default, str):
        return f"`{json.dumps(str(setting.default))}`"
    return f"`{written(setting.default)}`"


def values(setting: Setting) -> str:
    """What it can be."""
    match setting.kind:
        case Kind.CHOICE:
            assert setting.choices is not None
            return ", ".join(f"`{written(choice)}`" for choice in setting.choices)
        case Kind.BOOL:
            return "`true`, `false`"
        case Kind.SIZE:
            return f"size, {size.show(setting.minimum)} to {size.show(setting.maximum)}"
        case Kind.COUNT | Kind.SECONDS:
            return f"{setting.kind.value}, {setting.minimum} to {setting.maximum}"
        case _:
            return str(setting.kind.value)


def folder(setting: Setting) -> str:
    """What the folder's file may do to it."""
    match setting.folder:
        case Folder.FREE:
            return "set it"
        case Folder.TIGHTEN if setting.is_list:
            return "tighten: add to it"
        case Folder.TIGHTEN if setting.loosest_first:
            order = " → ".join(f"`{written(value)}`" for value in setting.loosest_first)
            return f"tighten: {order}"
        case Folder.TIGHTEN:
            return "make it smaller"
        case Folder.TRUST:
            return "set it after `sandbox trust`"
        case Folder.NEVER:
            return "never set it"


def settings_page() -> str:
    """docs/settings.md."""
    head = ["Key", "Flag", "Default", "Values", "The folder may", "Meaning"]
    parts = [SETTINGS_HEAD]
    tables = dict.fromkeys(setting.path[:-1] for setting in SETTINGS)
    for path in tables:
        rows = [
            [
                f"`{setting.path[-1]}`",
                flag(setting),
                default(setting),
                values(setting),
                folder(setting),
                f"{setting.help[:1].upper()}{setting.help[1:]}. {setting.doc}",
            ]
            for setting in SETTINGS
            if setting.path[:-1] == path
        ]
        title = f"`[{'.'.join(path)}]`" if path else "At the top of the file"
        parts.append(f"## {title}\n\n{table(head, rows)}")
    return "\n".join(parts)


def errors_page() -> str:
    """docs/errors.md."""

    def block(error: type[SandboxError]) -> type[SandboxError]:
        return error.__mro__[1]

    head = ["Code", "Kind", "Meaning", "What to do", "Exit status"]
    parts = [ERRORS_HEAD]
    ordered = [ERRORS[code] for code in sorted(ERRORS)]
    for base, group in groupby(ordered, key=block):
        errors = list(group)
        rows = [
            [
                str(error.code),
                f"`{kind_of(error)}`",
                first_line(error),
                error.default_hint or "The error itself says.",
                str(error.code // 100),
            ]
            for error in errors
        ]
        start = errors[0].code // 100 * 100
        parts.append(
            f"## {start} to {start + 99}: {first_line(base).rstrip('.')}\n\n{table(head, rows)}"
        )
    return "\n".join(parts)


def first_line(error: type[SandboxError]) -> str:
    """What an error means, from its docstring."""
    return (inspect.getdoc(error) or "").partition("\n")[0]


PAGES = {"settings.md": settings_page, "errors.md": errors_page}


def pages(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Name, file and content of all that is written from the tables."""
    for name, page in PAGES.items():
        yield name, folder / name, page()
    for name, content in editor.files():
        yield name, editor.ROOT / name, content


def drift(folder: Path = DOCS) -> Iterator[str]:
    """Lines of a diff from what is written in `folder` to what should be; none where all agrees."""
    for name, file, content in pages(folder):
        is_now = file.read_text(encoding="utf-8") if file.exists() else ""
        yield from difflib.unified_diff(
            is_now.splitlines(),
            content.splitlines(),
            f"{name} (written)",
            f"{name} (source)",
            "",
            "",
        )


def main(arguments: list[str] | None = None) -> int:
    """Write, or with `--check` compare; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only print what would change")
    if parser.parse_args(arguments).check:
        if lines := list(drift(DOCS)):
            print("\n".join(lines))
            print(
                f"\nThe documents are not those of the source. Repair: {COMMAND}", file=sys.stderr
            )
            return 1
        return 0
    for _, file, content in pages(DOCS):
        file.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
