"""The model as a JSON schema, with a table of methods beside the definitions."""

from __future__ import annotations

from typing import Any

from protocol.metamodel import LARGE_INTEGER, Model
from protocol.wording import kind_of, prose_and_errors

BASE = {"integer": "integer", "uinteger": "integer", "decimal": "number"}
LARGEST = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""


def schema(model: Model) -> dict[str, Any]:
    """The whole file."""
    definitions: dict[str, Any] = {}
    for alias in model["typeAliases"]:
        form = _form(alias["type"])
        if alias["name"] == LARGE_INTEGER:
            # The model has no words for its range.
            form = {"type": "integer", "minimum": 0, "maximum": LARGEST}
        definitions[alias["name"]] = {"description": alias["documentation"], **form}
    for one in model["enumerations"]:
        definitions[one["name"]] = {
            "description": one["documentation"],
            "type": _form(one["type"])["type"],
            "oneOf": [
                {"const": value["value"], "title": value["name"]}
                | {"description": value["documentation"]}
                for value in one["values"]
            ],
        }
    for structure in model["structures"]:
        definitions[structure["name"]] = _structure(structure)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Sandbox protocol {model['metaData']['version']}",
        "description": "Written by protocol/generate.py from protocol/metaModel.json. `methods` "
        "says which definition is a method's params and which its result; objects may have more "
        "fields than are listed.",
        "methods": {
            entry["method"]: _method(entry) for entry in model["requests"] + model["notifications"]
        },
        "$defs": dict(sorted(definitions.items())),
    }


def _method(entry: Model) -> dict[str, Any]:
    made: dict[str, Any] = {
        "kind": "request" if "result" in entry else "notification",
        "from": "client" if entry["messageDirection"] == "clientToServer" else "server",
    }
    for part in ("params", "result"):
        if part in entry:
            made[part] = _form(entry[part])
    if "result" in entry:
        made["errors"] = [kind_of(name) for name in prose_and_errors(entry)[1]]
        made["errorData"] = _form(entry["errorData"])
    return made


def _structure(structure: Model) -> dict[str, Any]:
    made = {
        "description": structure["documentation"],
        "type": "object",
        "properties": {
            one["name"]: {"description": one["documentation"], **_form(one["type"])}
            for one in structure["properties"]
        },
    }
    required = [one["name"] for one in structure["properties"] if not one.get("optional")]
    return made | ({"required": required} if required else {})


def _form(form: Model) -> dict[str, Any]:
    match form["kind"]:
        case "base":
            return {"type": BASE.get(form["name"], form["name"])}
        case "reference":
            return {"$ref": f"#/$defs/{form['name']}"}
        case "array":
            return {"type": "array", "items": _form(form["element"])}
        case "map":
            return {"type": "object", "additionalProperties": _form(form["value"])}
        case "or":
            return {"anyOf": [_form(item) for item in form["items"]]}
    raise ValueError(f"no schema for {form}")
