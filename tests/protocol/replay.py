"""Play the client's side of a recorded session against a live server, and compare its side.

`replay(read(path), command, places)` starts the server, sends what the client sent, each message
once the server has said what it had said before it, and returns an `Outcome`: what the server said
(`lines`, for `check.problems`), its exit status, and `differences` from the recording.

Not compared, since the protocol does not promise it: the order of answers and of different
streams, how output is cut into pieces, reports between begin and end of a progress, all but the
last `sandbox/didChange` of a sandbox, what the console prints, words of JSON-RPC's own errors, and
the results in `LOOSE`. Fields in protocol/volatile.py are compared as their stand-ins.
"""

from __future__ import annotations

import base64
import difflib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from protocol.volatile import placed, settled
from sandbox_rpc.protocol.frames import Decoder, encode
from tests.protocol.check import Line, base64_size

LOOSE = frozenset({"host/doctor", "console/attach"})
"""Requests whose result is different on each host or in each run."""
QUIET_S = 5.0
"""How long a console may say nothing before the client goes on without it."""


@attrs.frozen
class Outcome:
    """What a replay came to."""

    lines: list[Line]
    """Both sides, settled, in the order in which they passed here."""
    differences: list[str]
    """Lines of a diff; empty where the server said what it had said."""
    status: int
    """The server's exit status."""


def replay(
    lines: Sequence[Line],
    command: Sequence[str],
    places: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    limit_s: float = 300,
) -> Outcome:
    """Play a session against a server that `command` starts. `places`: path → name, as recorded.

    Raises:
        AssertionError: the server did not say, within `limit_s` seconds, what the client waits for.
    """
    with Player(command, places, env=env, limit_s=limit_s) as player:
        for number, line in enumerate(lines):
            if line.sender == "client":
                player.send(line.message)
            else:
                player.await_like(line.message, f"line {number + 1}")
        status = player.finish()
    before, after = comparable(lines), comparable(player.lines)
    differences = difflib.unified_diff(before, after, "recorded", "replayed", lineterm="")
    return Outcome(player.lines, list(differences), status)


class Player:
    """A client that says what it is told to, and remembers all it hears."""

    def __init__(
        self,
        command: Sequence[str],
        places: Mapping[str, str],
        *,
        env: Mapping[str, str] | None,
        limit_s: float,
    ) -> None:
        self._places = places
        self._limit_s = limit_s
        self._heard = threading.Condition()
        self._ended = False
        self._marked: dict[str, int] = {}
        self._expected: dict[object, int] = {}
        self.lines: list[Line] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def send(self, message: dict[str, Any]) -> None:
        """Say what the client said."""
        assert self._process.stdin is not None
        with self._heard:
            self.lines.append(Line("client", message))
            self._marked = {stream: self._bytes(stream) for stream in self._streams()}
        try:
            self._process.stdin.write(encode(placed(message, self._places)))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the server had ended before {message}") from None

    def await_like(self, message: dict[str, Any], where: str) -> None:
        """Wait until the server has said as much as it had with this message."""
        limit = time.monotonic() + self._limit_s
        quiet = time.monotonic() + QUIET_S
        wanted = self._wanted(message)
        with self._heard:
            while not wanted():
                if message.get("method") == "console/output" and time.monotonic() > quiet:
                    return
                said = [line.message for line in self.lines if line.sender == "server"][-5:]
                assert not self._ended, f"{where}: the server ended before it sent {message}"
                assert time.monotonic() < limit, f"{where}: not like {message}; last: {said}"
                self._heard.wait(0.5)

    def finish(self) -> int:
        """Close the client's end and wait for the server's; the exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(self._limit_s)
        self._reader.join(self._limit_s)
        return status

    def _wanted(self, message: dict[str, Any]) -> Callable[[], bool]:
        params = message.get("params", {})
        match message.get("method"):
            case None:
                return lambda: self._has_answer(message["id"])
            case "$/progress" if params["value"]["kind"] != "report":
                like = (params["token"], params["value"]["kind"])
                return lambda: (
                    any((p["token"], p["value"]["kind"]) == like for p in self._said("$/progress"))
                    or self._is_over("workDoneToken", params["token"])
                )
            case "sandbox/execOutput":
                key = (params["token"], params["stream"])
                self._expected[key] = self._expected.get(key, 0) + base64_size(params["data"])
                size = self._expected[key]
                return lambda: (
                    sum(
                        base64_size(p["data"])
                        for p in self._said("sandbox/execOutput")
                        if (p["token"], p["stream"]) == key
                    )
                    >= size
                    or self._is_over("token", params["token"])
                )
            case "console/output":
                stream = params["stream"]
                return lambda: self._bytes(stream) > self._marked.get(stream, 0)
            case "console/closed":
                stream = params["stream"]
                return lambda: any(p["stream"] == stream for p in self._said("console/closed"))
        return lambda: True

    def _said(self, method: str) -> Iterator[dict[str, Any]]:
        for line in self.lines:
            if line.sender == "server" and line.message.get("method") == method:
                yield line.message["params"]

    def _has_answer(self, id_: object) -> bool:
        return any(
            line.sender == "server" and "method" not in line.message and line.message["id"] == id_
            for line in self.lines
        )

    def _is_over(self, name: str, token: object) -> bool:
        """Whether the request that brought a token has its answer."""
        return any(
            self._has_answer(line.message["id"])
            for line in self.lines
            if line.sender == "client" and "id" in line.message
            and line.message.get("params", {}).get(name) == token
        )  # fmt: skip

    def _streams(self) -> set[str]:
        return {params["stream"] for params in self._said("console/output")}

    def _bytes(self, stream: str) -> int:
        return sum(
            base64_size(params["data"])
            for params in self._said("console/output")
            if params["stream"] == stream
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        decoder = Decoder()
        while data := self._process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            for body in decoder.feed(data):
                message = settled("server", json.loads(body), self._places)
                with self._heard:
                    self.lines.append(Line("server", message))
                    self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()


def comparable(lines: Sequence[Line]) -> list[str]:
    """What of the server's side is the same in every run, as text to compare."""
    methods = {
        line.message["id"]: line.message["method"]
        for line in lines
        if line.sender == "client" and "id" in line.message
    }
    answers: dict[str, Any] = {}
    streams: dict[str, Any] = {}
    for line in lines:
        if line.sender == "client":
            continue
        message = line.message
        params = message.get("params", {})
        match message.get("method"):
            case None:
                key = f"answer to {message['id']!r}"
                answers[key] = _answer(message, methods.get(message["id"]))
            case "$/progress":
                if (kind := params["value"]["kind"]) != "report":
                    streams.setdefault(f"progress {params['token']}", []).append(kind)
            case "sandbox/execOutput":
                key = f"exec {params['token']} {params['stream']}"
                streams[key] = streams.get(key, b"") + base64.b64decode(params["data"])
            case "console/output":
                streams[f"console {params['stream']}"] = "printed"
            case "sandbox/didChange":
                streams[f"change of {params['name']}"] = params
            case method:
                streams.setdefault(str(method), []).append(params)
    return [
        text
        for key, value in sorted({**answers, **streams}.items())
        for text in (key, *json.dumps(value, indent=2, sort_keys=True, default=repr).splitlines())
    ]


def _answer(message: dict[str, Any], method: str | None) -> Any:
    if "error" not in message:
        return "a result" if method in LOOSE else message["result"]
    error = message["error"]
    # The words of pygls and cattrs, which change with their versions.
    return error if error["code"] > 0 else {"code": error["code"]}
