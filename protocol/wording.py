"""What several emitters say of a model; like them it looks at nothing but the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.metamodel import Model

MODEL: Mapping[str, str] = {}
"""The model's own names."""


def type_text(form: Model, base: Mapping[str, str] = MODEL) -> str:
    """A type as TypeScript writes it, the basic ones by the names in `base`."""
    match form["kind"]:
        case "base":
            return base.get(form["name"], str(form["name"]))
        case "reference":
            return str(form["name"])
        case "array":
            element = type_text(form["element"], base)
            return f"({element})[]" if form["element"]["kind"] == "or" else f"{element}[]"
        case "map":
            return f"Record<{type_text(form['key'], base)}, {type_text(form['value'], base)}>"
        case "or":
            return " | ".join(type_text(item, base) for item in form["items"])
    raise ValueError(f"no words for {form}")


def prose_and_errors(request: Model) -> tuple[str, list[str]]:
    """The documentation of a request, and the names of its errors."""
    prose, _, throws = request["documentation"].partition("\n\n@throws ")
    return prose, throws.split(", ") if throws else []


def kind_of(name: str) -> str:
    """`data.kind` of an error's name."""
    return name[:1].lower() + name[1:]


def error_codes(model: Model) -> list[dict[str, Any]]:
    """The entries of the enumeration of error codes."""
    [codes] = [one for one in model["enumerations"] if one["type"]["name"] == "integer"]
    values: list[dict[str, Any]] = codes["values"]
    return values
