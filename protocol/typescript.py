"""The model as TypeScript for vscode-jsonrpc: interfaces, method constants, error codes."""

from __future__ import annotations

import json
from collections.abc import Iterator

from protocol.metamodel import Model
from protocol.wording import type_text

BASE = {"integer": "number", "uinteger": "number", "decimal": "number"}


def typescript(model: Model) -> str:
    """The whole file."""
    used = sorted({_constructor(entry) for entry in model["requests"] + model["notifications"]})
    lines = [
        "// Written by protocol/generate.py from protocol/metaModel.json; changes here are lost.",
        "",
        f'import {{ {", ".join(used)} }} from "vscode-jsonrpc";',
        "",
        "/** major.minor; goes into `InitializeParams`. */",
        f"export const PROTOCOL_VERSION = {json.dumps(model['metaData']['version'])};",
    ]
    for alias in model["typeAliases"]:
        lines += ["", *_comment(alias["documentation"])]
        lines += [f"export type {alias['name']} = {_text(alias['type'])};"]
    for enumeration in model["enumerations"]:
        lines += ["", *_enumeration(enumeration)]
    for structure in model["structures"]:
        lines += ["", *_structure(structure)]
    for entry in model["requests"] + model["notifications"]:
        lines += ["", *_comment(entry["documentation"]), _constant(entry)]
    return "\n".join(lines) + "\n"


def _text(form: Model) -> str:
    return type_text(form, BASE)


def _comment(text: str, indent: str = "") -> list[str]:
    lines = text.replace("*/", "*\\/").split("\n")
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]


def _enumeration(enumeration: Model) -> Iterator[str]:
    name, values = enumeration["name"], enumeration["values"]
    if enumeration["type"]["name"] == "string":
        listed = [f"- `{value['value']}`: {value['documentation']}" for value in values]
        yield from _comment("\n".join([enumeration["documentation"], "", *listed]))
        yield f"export type {name} = {' | '.join(json.dumps(value['value']) for value in values)};"
        return
    # An object, not an enum: what strips types and does nothing else can run the file.
    yield from _comment(enumeration["documentation"])
    yield f"export const {name} = {{"
    for value in values:
        yield from _comment(value["documentation"], "  ")
        yield f"  {value['name']}: {value['value']},"
    yield "} as const;"
    yield from _comment(enumeration["documentation"])
    yield f"export type {name} = (typeof {name})[keyof typeof {name}];"


def _structure(structure: Model) -> Iterator[str]:
    yield from _comment(structure["documentation"])
    yield f"export interface {structure['name']} {{"
    for one in structure["properties"]:
        yield from _comment(one["documentation"], "  ")
        mark = "?" if one.get("optional") else ""
        yield f"  {one['name']}{mark}: {_text(one['type'])};"
    yield "}"


def _constructor(entry: Model) -> str:
    kind = "RequestType" if "result" in entry else "NotificationType"
    return kind if "params" in entry else kind + "0"


def _constant(entry: Model) -> str:
    forms = [entry[part] for part in ("params", "result", "errorData") if part in entry]
    types = f"<{', '.join(map(_text, forms))}>" if forms else ""
    made = f"new {_constructor(entry)}{types}({json.dumps(entry['method'])})"
    return f"export const {entry['typeName']} = {made};"
