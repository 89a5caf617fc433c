"""The model as a page for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from protocol.metamodel import Model, references
from protocol.wording import error_codes, kind_of, prose_and_errors, type_text

LIFECYCLE = "Lifecycle"

HEAD = """\
<!-- Written by protocol/generate.py from protocol/metaModel.json; changes here are lost. -->

# Reference of the sandbox protocol {version}

[README.md](README.md) says how the messages travel and what holds for all of them. A field with a
question mark may be absent; none is ever null. Bytes are base64.
"""


def reference(model: Model) -> str:
    """The whole file."""
    parts = [HEAD.format(version=model["metaData"]["version"])]
    entries = [*model["requests"], *model["notifications"]]
    parts.append("\n".join(_contents(entries)))
    # Stable, so requests stay before notifications and the lifecycle before all else.
    areas = list(dict.fromkeys(map(_area, entries)))
    entries.sort(key=lambda entry: areas.index(_area(entry)))
    structures = {one["name"]: one for one in model["structures"]}
    for area, group in groupby(entries, key=_area):
        parts.append(f"\n# {_area_title(area)}\n")
        parts += [_method(entry, structures) for entry in group]
    parts.append("\n# Values\n")
    inlined = {entry["params"]["name"] for entry in entries if "params" in entry}
    used_inside = {
        name
        for part in (*structures.values(), *({"result": entry.get("result")} for entry in entries))
        for name in references(part)
    }
    for one in structures.values():
        if one["name"] not in inlined or one["name"] in used_inside:
            heading = f"## {one['name']}\n\n{one['documentation']}\n"
            parts.append(f"{heading}\n{_fields(one)}")
    for one in model["enumerations"]:
        if one["type"]["name"] == "string":
            rows = [[f"`{v['value']}`", v["documentation"]] for v in one["values"]]
            heading = f"## {one['name']}\n\n{one['documentation']}\n"
            parts.append(f"{heading}\n{_table(['Value', 'Meaning'], rows)}")
    for one in model["typeAliases"]:
        parts.append(f"## {one['name']}\n\n{one['documentation']}\n")
    parts.append(
        "\n# Errors\n\nWith hints and exit statuses: [docs/errors.md](../docs/errors.md).\n"
    )
    rows = [
        [str(value["value"]), f"`{kind_of(value['name'])}`", value["documentation"]]
        for value in error_codes(model)
    ]
    parts.append(_table(["Code", "Kind", "Meaning"], rows))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def _area(entry: Model) -> str:
    first, slash, _ = entry["method"].partition("/")
    return first if slash and first not in ("$", "window") else LIFECYCLE


def _area_title(area: str) -> str:
    # `# sandbox` would take the anchor of the value `Sandbox`.
    return area if area == LIFECYCLE else f"Methods: {area}"


def _contents(entries: list[Model]) -> Iterator[str]:
    for area in dict.fromkeys(map(_area, entries)):
        links = [
            f"[`{entry['method']}`](#{_anchor(entry['method'])})"
            for entry in entries
            if _area(entry) == area
        ]
        yield f"- [{area}](#{_anchor(_area_title(area))}): {', '.join(links)}"
    yield "- [Values](#values), [Errors](#errors)"


def _anchor(heading: str) -> str:
    """What the well-known forges make of a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def _method(entry: Model, structures: dict[str, Any]) -> str:
    kind = "Request" if "result" in entry else "Notification"
    ends = ("client", "server")
    sender, receiver = ends if entry["messageDirection"] == "clientToServer" else ends[::-1]
    prose, errors = prose_and_errors(entry)
    facts = f"{kind}, {sender} to {receiver}, since {entry['since']}."
    lines = [f"## `{entry['method']}`", "", facts, "", prose, ""]
    if "params" in entry:
        params = structures[entry["params"]["name"]]
        lines += [f"Params `{params['name']}`: {params['documentation']}", "", _fields(params)]
    else:
        lines += ["No params.", ""]
    if "result" in entry:
        lines += [f"Result: {_linked(entry['result'])}", ""]
    if errors:
        lines += [f"Errors: {', '.join(f'`{kind_of(name)}`' for name in errors)}.", ""]
    return "\n".join(lines)


def _fields(structure: Model) -> str:
    rows = [
        [
            f"`{one['name']}`{'?' if one.get('optional') else ''}",
            _linked(one["type"]),
            one["documentation"] + (f" Since {one['since']}." if one["since"] != "1.0" else ""),
        ]
        for one in structure["properties"]
    ]
    return _table(["Field", "Type", "Meaning"], rows)


def _linked(form: Model) -> str:
    """A type, linked to what it refers to."""
    names = list(references(form))
    text = f"`{type_text(form)}`"
    return f"[{text}](#{_anchor(names[0])})" if names else text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"
