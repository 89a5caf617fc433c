"""Values to JSON and back, camelCase outside, snake_case inside; the only user of cattrs."""

from __future__ import annotations

import enum
import json
from functools import cache
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

T = TypeVar("T")


class Misfit(ValueError):
    """JSON that does not describe the value it should; `problems` says where."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def camel(name: str) -> str:
    """`memory_mib` → `memoryMib`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=False)

    def renames(kind: type) -> dict[str, Any]:
        attrs.resolve_types(kind)
        return {a.name: override(rename=camel(a.name)) for a in attrs.fields(kind)}

    def unstructure(kind: type) -> Any:
        return make_dict_unstructure_fn(
            kind, converter, _cattrs_omit_if_default=True, **renames(kind)
        )

    def structure(kind: type) -> Any:
        return make_dict_structure_fn(kind, converter, **renames(kind))

    def exactly(value: Any, kind: Any) -> Any:
        # JSON has types of its own: "12" is not a number, and true is not 1. A StrEnum comes here
        # too, since it is a str.
        if issubclass(kind, enum.Enum) and type(value) is str:
            return kind(value)
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise TypeError(f"expected {kind.__name__}")

    def identifier(value: Any, _: Any) -> Any:
        if value is None or type(value) in (int, str):
            return value
        raise TypeError("expected int or str")

    def scalar(value: Any, _: Any) -> Any:
        # As it came: a whole number stays one.
        if type(value) in (bool, int, float, str):
            return value
        raise TypeError("expected bool, number or str")

    converter.register_structure_hook(bool | float | str, scalar)
    converter.register_structure_hook(int | str, identifier)
    converter.register_structure_hook(int | str | None, identifier)
    converter.register_unstructure_hook_factory(attrs.has, unstructure)
    converter.register_structure_hook_factory(attrs.has, structure)
    for primitive in (str, int, bool, float):
        converter.register_structure_hook(primitive, exactly)
    return converter


def to_wire(value: Any) -> Any:
    """JSON-ready form of a value; fields that hold their default are left out."""
    return _converter().unstructure(value)


def from_wire(data: Any, kind: type[T]) -> T:
    """The value that `data` describes.

    Raises:
        Misfit: where it does not; unknown fields are ignored.
    """
    try:
        return _converter().structure(data, kind)
    except Exception as error:  # cattrs raises groups of anything
        raise Misfit(cattrs.transform_error(error, path=kind.__name__)) from None


def dumps(value: Any) -> str:
    """Pretty JSON of a value, for state files and `--json`."""
    return json.dumps(to_wire(value), indent=2)
