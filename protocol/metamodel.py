"""The Python classes as a model in the format of LSP's metaModel.json."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from sandbox_rpc.protocol import (
    convert,
    images,
    lifecycle,
    methods,
    network,
    streams,
    templates,
    workspace,
)
from sandbox_rpc.protocol import types as values
from sandbox_rpc.protocol.errors import ERRORS, SandboxError
from sandbox_rpc.protocol.methods import Notification, Request

Model = dict[str, Any]

BASE = {str: "string", int: "integer", bool: "boolean", float: "decimal", type(None): "null"}
LARGE_INTEGER = "LargeInteger"
ERROR_CODE = "SandboxErrorCode"
ERROR_DATA = "ErrorData"
SINCE = re.compile(r"\s*@since (\d+\.\d+)$")


class Unclear(Exception):
    """The source does not say enough to describe the protocol."""


def source_model() -> Model:
    """The model of the protocol as it is."""
    return model(
        version=methods.VERSION,
        requests=(*lifecycle.REQUESTS, *methods.REQUESTS),
        notifications=(*lifecycle.NOTIFICATIONS, *methods.NOTIFICATIONS),
        classes=[
            kind
            for module in (lifecycle, values, images, templates, network, workspace, streams)
            for kind in _classes(module)
        ],
        errors=[ERRORS[code] for code in sorted(ERRORS)],
    )


def model(
    *,
    version: str,
    requests: Sequence[Request],
    notifications: Sequence[Notification],
    classes: Sequence[type],
    errors: Sequence[type[SandboxError]],
) -> Model:
    """The model of these methods, values and errors.

    Raises:
        Unclear: a docstring is missing, or a type has no form on the wire.
    """
    names = {kind.__name__ for kind in classes}
    made: Model = {
        "metaData": {"version": version},
        "requests": [_request(request) for request in requests],
        "notifications": [_notification(note) for note in notifications],
        "structures": [_structure(kind) for kind in classes if _is_structure(kind)],
        "enumerations": [
            *(_enumeration(kind) for kind in classes if issubclass(kind, enum.Enum)),
            _error_codes(errors),
        ],
        "typeAliases": [
            {
                "name": LARGE_INTEGER,
                "type": {"kind": "base", "name": "decimal"},
                "documentation": "A whole number in [0, 2^53 - 1]; an integer of LSP's has 32 "
                "bits.",
                "since": "1.0",
            }
        ],
    }
    for name in references(made):
        if name not in names | {LARGE_INTEGER}:
            raise Unclear(f"{name} is used and in none of the modules we read; move it there.")
    return made


def references(node: Any) -> Iterator[str]:
    """The names that a part of a model refers to."""
    if isinstance(node, dict):
        if node.get("kind") == "reference":
            yield node["name"]
        for part in node.values():
            yield from references(part)
    elif isinstance(node, list):
        for part in node:
            yield from references(part)


def type_name(method: str, suffix: str) -> str:
    """What generated code calls a method: `sandbox/start` → `SandboxStartRequest`."""
    words = re.findall(r"\w+", method)
    return "".join(word[0].upper() + word[1:] for word in words) + suffix


def _classes(module: types.ModuleType) -> list[type]:
    return [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
    ]


def _is_structure(kind: type) -> bool:
    """Whether it goes over the wire; a class without fields means that nothing does."""
    return attrs.has(kind) and bool(attrs.fields(kind))


def _request(request: Request) -> Model:
    doc = _sentence(request.doc, request.method)
    if request.progress and "work_done_token" not in _fields(request.params):
        raise Unclear(f"{request.method} reports progress and its params have no work_done_token.")
    if request.errors:
        doc += "\n\n@throws " + ", ".join(error.__name__ for error in request.errors)
    return {
        "method": request.method,
        "typeName": type_name(request.method, "Request"),
        "result": _type(request.result, request.method),
        "messageDirection": "clientToServer",
        **_params(request.params, request.method),
        "errorData": {"kind": "reference", "name": ERROR_DATA},
        "documentation": doc,
        "since": request.since,
    }


def _notification(note: Notification) -> Model:
    return {
        "method": note.method,
        "typeName": type_name(note.method, "Notification"),
        "messageDirection": "clientToServer" if note.to_server else "serverToClient",
        **_params(note.params, note.method),
        "documentation": _sentence(note.doc, note.method),
        "since": note.since,
    }


def _params(kind: type | None, where: str) -> Model:
    return {} if kind is None or not _fields(kind) else {"params": _type(kind, where)}


def _fields(kind: type | None) -> set[str]:
    return {field.name for field in attrs.fields(kind)} if kind is not None else set()


def _structure(kind: type) -> Model:
    hints = typing.get_type_hints(kind)
    doc, docs = _written(kind)
    return {
        "name": kind.__name__,
        "properties": [_property(kind, a, hints[a.name], docs) for a in attrs.fields(kind)],
        **_documented(_sentence(doc, kind.__name__)),
    }


def _property(kind: type, a: attrs.Attribute[Any], hint: Any, docs: dict[str, str]) -> Model:
    where = f"{kind.__name__}.{a.name}"
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    optional = a.default is not attrs.NOTHING
    if type(None) in options:
        if not optional or a.default is not None:
            raise Unclear(f"{where} may be None, and null never goes over the wire; default None.")
        options = tuple(option for option in options if option is not type(None))
    form = _type(typing.Union[options], where)  # noqa: UP007  (of a tuple)
    if a.metadata.get("large"):
        if form != {"kind": "base", "name": "integer"}:
            raise Unclear(f"{where} is marked LARGE and is not an int.")
        form = {"kind": "reference", "name": LARGE_INTEGER}
    doc = _sentence(docs.get(a.name), where)
    if optional and a.default is not None:
        prose, since = _since(doc)
        doc = f"{prose} Default: `{_default(a)}`." + (f"\n\n@since {since}" if since else "")
    return {
        "name": convert.camel(a.name),
        "type": form,
        **({"optional": True} if optional else {}),
        **_documented(doc),
    }


def _default(a: attrs.Attribute[Any]) -> str:
    # attrs.Factory is a function in the stubs and a class when it runs.
    made = a.default.factory() if isinstance(a.default, attrs.Factory) else a.default  # type: ignore[arg-type, union-attr]
    return json.dumps(convert.to_wire(made))


def _enumeration(kind: type[enum.Enum]) -> Model:
    doc, docs = _written(kind)
    return {
        "name": kind.__name__,
        "type": {"kind": "base", "name": "string"},
        "values": [
            {
                "name": "".join(map(str.capitalize, member.name.split("_"))),
                "value": member.value,
                **_documented(_sentence(docs.get(member.name), f"{kind.__name__}.{member.name}")),
            }
            for member in kind
        ],
        **_documented(_sentence(doc, kind.__name__)),
    }


def _error_codes(errors: Sequence[type[SandboxError]]) -> Model:
    return {
        "name": ERROR_CODE,
        "type": {"kind": "base", "name": "integer"},
        "values": [
            {
                "name": error.__name__,
                "value": error.code,
                **_documented(_sentence(_written(error)[0], error.__name__)),
            }
            for error in errors
        ],
        "documentation": "`code` of an error; with a small first letter, a name is `data.kind`.",
        "since": "1.0",
    }


def _type(kind: Any, where: str) -> Model:
    if kind is None or kind in BASE:
        return {"kind": "base", "name": BASE[type(None) if kind is None else kind]}
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if _is_union(kind):
        return {"kind": "or", "items": [_type(option, where) for option in args]}
    if origin is list:
        return {"kind": "array", "element": _type(args[0], where)}
    if origin is dict and args[0] is str:
        return {"kind": "map", "key": _type(args[0], where), "value": _type(args[1], where)}
    if inspect.isclass(kind) and (attrs.has(kind) or issubclass(kind, enum.StrEnum)):
        return {"kind": "reference", "name": kind.__name__}
    raise Unclear(f"{where} has the type {kind}, which has no form on the wire.")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _written(kind: type) -> tuple[str | None, dict[str, str]]:
    """The docstring of a class, and the strings under its fields."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    docs = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str() as text)),
            ):
                docs[name] = inspect.cleandoc(text)
    return ast.get_docstring(node), docs


def _sentence(text: str | None, where: str) -> str:
    if not text:
        raise Unclear(f"{where} has no docstring; write under it what it means, with its unit.")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _since(doc: str) -> tuple[str, str | None]:
    found = SINCE.search(doc)
    return (doc[: found.start()], found[1]) if found else (doc, None)


def _documented(doc: str) -> Model:
    """Documentation, and `since` where it ends with `@since 1.1`; else it is of the first day."""
    prose, since = _since(doc)
    return {"documentation": prose, "since": since or "1.0"}
