"""Whether a session is one the protocol allows: envelopes, values, errors, and the order.

`read(path)` gives the lines of an example, `problems(lines)` what is wrong with them: nothing where
every message fits schema.json and the ordering promises of protocol/README.md were kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "protocol/examples"
SCHEMA: dict[str, Any] = json.loads((ROOT / "protocol/schema.json").read_text())
CODES = {one["title"]: one["const"] for one in SCHEMA["$defs"]["SandboxErrorCode"]["oneOf"]}

OPEN = frozenset({"ErrorData"})
"""Values of the server that may have further fields."""
REFUSALS = frozenset({-32600, -32601, -32602, -32002})
"""Answers to requests that are themselves wrong."""
CANCELLED = -32800

ID = {"type": ["integer", "string"]}
PARAMS = {"type": ["object"]}
ENVELOPE = {
    "type": "object",
    "required": ["jsonrpc"],
    "properties": {"jsonrpc": {"const": "2.0"}},
    "oneOf": [
        {
            "properties": {"jsonrpc": {}, "id": ID, "method": {"type": "string"}, "params": PARAMS},
            "required": ["method"],
            "additionalProperties": False,
        },
        {
            "properties": {"jsonrpc": {}, "id": ID, "result": {}},
            "required": ["id", "result"],
            "additionalProperties": False,
        },
        {
            "properties": {
                "jsonrpc": {},
                "id": {"type": ["integer", "string", "null"]},
                "error": {
                    "type": "object",
                    "properties": {
                        "code": {"type": "integer"},
                        "message": {"type": "string", "minLength": 1},
                        "data": {"type": "object"},
                    },
                    "required": ["code", "message"],
                    "additionalProperties": False,
                },
            },
            "required": ["id", "error"],
            "additionalProperties": False,
        },
    ],
}


@attrs.frozen
class Line:
    """One message of a session."""

    sender: str
    """`client` or `server`."""
    message: dict[str, Any]
    """As it went over the wire."""


def read(path: Path) -> list[Line]:
    """The lines of an example."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert all(line.keys() == {"from", "message"} for line in lines), path
    assert {line["from"] for line in lines} <= {"client", "server"}, path
    return [Line(line["from"], line["message"]) for line in lines]


def problems(lines: Sequence[Line]) -> list[str]:
    """What is wrong with a whole session."""
    session = Session()
    found = [
        f"line {number}: {problem}"
        for number, line in enumerate(lines, 1)
        for problem in session.take(line)
    ]
    return found + [f"{method} ({id_}) was never answered" for id_, method in session.open()]


@attrs.define
class _Asked:
    method: str
    params: dict[str, Any]
    misfits: list[str]


@attrs.define
class Session:
    """Follows one session, message by message."""

    _asked: dict[int | str, _Asked] = attrs.field(factory=dict)
    _progress: dict[object, str] = attrs.field(factory=dict)
    """Last kind by token."""
    _consoles: dict[str, int | None] = attrs.field(factory=dict)
    """Offset of the next byte by stream; None before the first."""

    def take(self, line: Line) -> Iterator[str]:
        """What is wrong with the next message."""
        message = line.message
        bad = [error.message for error in Draft202012Validator(ENVELOPE).iter_errors(message)]
        if bad:
            yield f"not a message of JSON-RPC 2.0: {bad}"
        elif "method" not in message:
            yield from self._answer(line)
        elif "id" in message:
            yield from self._request(line)
        else:
            yield from self._notification(line)

    def open(self) -> Iterator[tuple[int | str, str]]:
        """Requests without an answer: id and method."""
        yield from ((id_, asked.method) for id_, asked in self._asked.items())

    def _request(self, line: Line) -> Iterator[str]:
        message = line.message
        if line.sender != "client":
            yield "a request of the server"
        elif message["id"] in self._asked:
            yield f"the id {message['id']} is that of a request under way"
        else:
            params = message.get("params", {})
            # Wrong params are fine in an example that shows how they are refused.
            bad = _call_misfits(line, kind="request")
            self._asked[message["id"]] = _Asked(message["method"], params, bad)

    def _answer(self, line: Line) -> Iterator[str]:
        message = line.message
        if line.sender != "server":
            yield "an answer of the client, which was not asked"
            return
        if (asked := self._asked.pop(message["id"], None)) is None:
            if message["id"] is not None:
                yield f"an answer to {message['id']}, which nobody asked"
            return
        token = asked.params.get("workDoneToken")
        if self._progress.get(token) not in (None, "end"):
            yield f"{asked.method} was answered before the end of its progress"
        if "error" in message:
            yield from _error_misfits(asked, message["error"])
            return
        yield from asked.misfits
        if not asked.misfits:
            yield from _misfits(SCHEMA["methods"][asked.method]["result"], message["result"])
        if asked.method == "console/attach" and not asked.misfits:
            self._consoles[asked.params["stream"]] = None

    def _notification(self, line: Line) -> Iterator[str]:
        bad = _call_misfits(line, kind="notification")
        yield from bad
        if bad or line.sender == "client":
            return
        params = line.message.get("params", {})
        match line.message["method"]:
            case "$/progress":
                yield from self._progressed(params["token"], params["value"]["kind"])
            case "sandbox/execOutput":
                runs = {
                    asked.params.get("token")
                    for asked in self._asked.values()
                    if asked.method == "sandbox/exec"
                }
                if params["token"] not in runs:
                    yield f"output of {params['token']}, which does not run"
            case "console/output":
                yield from self._printed(params)
            case "console/closed":
                if self._consoles.pop(params["stream"], -1) == -1:
                    yield f"the end of {params['stream']}, which is not attached"

    def _progressed(self, token: object, kind: str) -> Iterator[str]:
        tokens = {asked.params.get("workDoneToken") for asked in self._asked.values()}
        if token not in tokens:
            yield f"progress of {token}, which no request under way has"
        before = self._progress.get(token, "end")
        if (kind == "begin") != (before == "end"):
            yield f"progress {kind} after {before}"
        self._progress[token] = kind

    def _printed(self, params: dict[str, Any]) -> Iterator[str]:
        stream, offset = params["stream"], params["offset"]
        if stream not in self._consoles:
            yield f"output of {stream}, which is not attached"
            return
        expected = self._consoles[stream]
        if expected not in (None, offset):
            yield f"output of {stream} at {offset}, after that up to {expected}"
        self._consoles[stream] = offset + base64_size(params["data"])


def base64_size(data: str) -> int:
    """How many bytes base64 stands for."""
    return len(data) * 3 // 4 - data[-2:].count("=")


def _call_misfits(line: Line, *, kind: str) -> list[str]:
    """What is wrong with a request or a notification: method, direction, params."""
    method = line.message["method"]
    known = SCHEMA["methods"].get(method)
    if known is None or known["kind"] != kind or known["from"] != line.sender:
        return [f"the {line.sender} has no {kind} {method}"]
    params = line.message.get("params", {})
    if "params" not in known:
        # LSP's own `initialized` has an empty object.
        return [f"{method} takes no params"] if params else []
    return _misfits(known["params"], params, closed=line.sender == "server")


def _error_misfits(asked: _Asked, error: dict[str, Any]) -> Iterator[str]:
    code, data = error["code"], error.get("data", {})
    if code in REFUSALS or code == CANCELLED:
        return
    if asked.misfits:
        yield f"{asked.misfits} was answered with {code}"
        return
    listed = SCHEMA["methods"][asked.method]["errors"]
    if data.get("kind") not in listed:
        yield f"{asked.method} does not list the error {code} {data.get('kind')}: {error}"
        return
    name = data["kind"][0].upper() + data["kind"][1:]
    if CODES.get(name) != code:
        yield f"{data['kind']} has the code {CODES.get(name)}, not {code}"
    yield from _misfits(SCHEMA["methods"][asked.method]["errorData"], data)


def _misfits(form: dict[str, Any], value: Any, *, closed: bool = True) -> list[str]:
    """Where a value does not fit; a server of this version sends nothing that is not listed."""
    definitions = CLOSED if closed else SCHEMA["$defs"]
    validator = Draft202012Validator({"$defs": definitions, **form})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


CLOSED = {
    name: one
    | ({"additionalProperties": False} if "properties" in one and name not in OPEN else {})
    for name, one in SCHEMA["$defs"].items()
}
