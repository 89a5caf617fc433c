#!/usr/bin/env python3
"""Say what in a new metaModel.json breaks peers that were written for an old one.

python protocol/compatible.py OLD NEW    exit status 1 where anything breaks

A minor version may add methods, fields that may be absent, values of enumerations and errors. It
may not remove, rename, turn or retype anything, ask more of what a client sends, or promise less
of what a server sends. A new major version may do all that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from protocol.metamodel import Model, references  # noqa: E402

Named = dict[str, Model]

CLIENT, SERVER = "clientToServer", "serverToClient"


def breaks(old: Model, new: Model) -> list[str]:
    """One sentence for each break; none where `new` has a higher major version."""
    before, after = _version(old), _version(new)
    if after[0] > before[0]:
        return []
    found = [*_methods(old, new), *_structures(old, new), *_enumerations(old, new)]
    found += _aliases(old, new)
    if after < before:
        found.append(f"the version went back from {_written(before)} to {_written(after)}")
    added = list(_added(old, new))
    if added and after <= before:
        found.append(
            f"{', '.join(name for name, _ in added)}: added, and the version is still "
            f"{_written(after)}; raise the minor one"
        )
    elif added:
        found += [
            f"{name}: added with since {since}, and {_written(before)} is released without it"
            for name, since in added
            if since is None or tuple(map(int, since.split("."))) <= before
        ]
    return found


def _methods(old: Model, new: Model) -> Iterator[str]:
    for what in ("requests", "notifications"):
        present = _by(new[what], "method")
        for method, one in _by(old[what], "method").items():
            if (other := present.get(method)) is None:
                yield f"{method}: the {what[:-1]} was removed"
                continue
            if one["messageDirection"] != other["messageDirection"]:
                yield f"{method}: its direction changed"
            if what == "requests" and one["result"] != other["result"]:
                yield f"{method}: its result changed from {_type(one)} to {_type(other)}"
            yield from _params(method, one, other, new)


def _params(method: str, one: Model, other: Model, new: Model) -> Iterator[str]:
    if "params" not in other:
        if "params" in one:
            yield f"{method}: its params were removed"
    elif "params" in one:
        if one["params"] != other["params"]:
            yield f"{method}: the type of its params changed"
    elif other["messageDirection"] == CLIENT:
        added = _by(new["structures"])[other["params"]["name"]]
        if any(not field.get("optional") for field in added["properties"]):
            yield f"{method}: it now requires params"


def _structures(old: Model, new: Model) -> Iterator[str]:
    sent, present = senders(old), _by(new["structures"])
    for name, one in _by(old["structures"]).items():
        if (other := present.get(name)) is None:
            yield f"{name}: the structure was removed"
            continue
        fields, now = _by(one["properties"]), _by(other["properties"])
        by_client = CLIENT in sent.get(name, ())
        by_server = SERVER in sent.get(name, ())
        for field, was in fields.items():
            where = f"{name}.{field}"
            if field not in now:
                yield f"{where}: the field was removed"
                continue
            then, today = was.get("optional", False), now[field].get("optional", False)
            if then and not today and by_client:
                yield f"{where}: a client must send it now"
            if today and not then and by_server:
                yield f"{where}: a server may leave it out now"
            yield from _retyped(where, was["type"], now[field]["type"], by_client, by_server)
        for field in now.keys() - fields.keys():
            if by_client and not now[field].get("optional"):
                yield f"{name}.{field}: a new field that a client must send"


def _retyped(where: str, was: Model, is_: Model, by_client: bool, by_server: bool) -> Iterator[str]:
    """A client may be allowed more, a server may send less; anything else breaks."""
    then, now = _choices(was), _choices(is_)
    if then == now:
        return
    wider, narrower = now > then, now < then
    if not ((wider and not by_server) or (narrower and not by_client)):
        yield f"{where}: its type changed"


def _enumerations(old: Model, new: Model) -> Iterator[str]:
    present = _by(new["enumerations"])
    for name, one in _by(old["enumerations"]).items():
        if (other := present.get(name)) is None:
            yield f"{name}: the enumeration was removed"
            continue
        if one["type"] != other["type"]:
            yield f"{name}: its type changed"
        values = _by(other["values"])
        for word, value in _by(one["values"]).items():
            if word not in values:
                yield f"{name}.{word}: the value was removed"
            elif values[word]["value"] != value["value"]:
                yield f"{name}.{word}: it was {value['value']} and is {values[word]['value']}"
        taken = {value["value"]: word for word, value in _by(one["values"]).items()}
        for word, value in values.items():
            if taken.get(value["value"], word) != word:
                yield f"{name}.{word}: {value['value']} meant {taken[value['value']]}"


def _aliases(old: Model, new: Model) -> Iterator[str]:
    present = _by(new["typeAliases"])
    for name, one in _by(old["typeAliases"]).items():
        if name not in present:
            yield f"{name}: the alias was removed"
        elif present[name]["type"] != one["type"]:
            yield f"{name}: its type changed"


def _added(old: Model, new: Model) -> Iterator[tuple[str, str | None]]:
    """What is new, with its `since`."""
    for what in ("requests", "notifications"):
        before = _by(old[what], "method")
        for method, one in _by(new[what], "method").items():
            if method not in before:
                yield method, one.get("since")
    for what, part in (("structures", "properties"), ("enumerations", "values")):
        before = _by(old[what])
        for name, one in _by(new[what]).items():
            if name in before:
                known = _by(before[name][part])
                for word, piece in _by(one[part]).items():
                    if word not in known:
                        yield f"{name}.{word}", piece.get("since")


def senders(model: Model) -> dict[str, set[str]]:
    """Which end sends a structure, by its name; some are sent by both."""
    structures = _by(model["structures"])
    found: dict[str, set[str]] = {}

    def visit(node: Any, way: str) -> None:
        for name in references(node):
            if way not in found.setdefault(name, set()):
                found[name].add(way)
                visit(structures.get(name), way)

    for one in model["requests"]:
        way = one["messageDirection"]
        visit(one.get("params"), way)
        visit([one["result"], one.get("errorData")], SERVER if way == CLIENT else CLIENT)
    for one in model["notifications"]:
        visit(one.get("params"), one["messageDirection"])
    return found


def _choices(form: Model) -> frozenset[str]:
    options = form["items"] if form["kind"] == "or" else [form]
    return frozenset(json.dumps(option, sort_keys=True) for option in options)


def _type(request: Model) -> str:
    return json.dumps(request["result"], separators=(",", ":"))


def _by(entries: Iterable[Model], key: str = "name") -> Named:
    return {entry[key]: entry for entry in entries}


def _version(model: Model) -> tuple[int, ...]:
    return tuple(map(int, model["metaData"]["version"].split(".")))


def _written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def main(arguments: list[str] | None = None) -> int:
    """Compare two files; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    options = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    found = breaks(old, new)
    for sentence in found:
        print(sentence)
    if found:
        print(
            f"\nClients of protocol {old['metaData']['version']} would break. Keep it compatible, "
            "or raise the major version in sandbox_rpc/protocol/methods.py.",
            file=sys.stderr,
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
