"""The tools themselves: the check sees what is wrong, a recording replays, a difference shows."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.volatile import FROM_SERVER, placed, settled
from sandbox_rpc.protocol.frames import Decoder, encode
from tests.protocol.check import ROOT, Line, base64_size, problems, read
from tests.protocol.replay import comparable, replay

SERVER = [sys.executable, str(Path(__file__).with_name("server.py"))]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def client(id_: int | str | None, method: str, **params: Any) -> Line:
    """Something the client says."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id_ is not None:
        message["id"] = id_
    return Line("client", message | ({"params": params} if params else {}))


def answer(id_: int | str, result: Any) -> Line:
    """A result."""
    return Line("server", {"jsonrpc": "2.0", "id": id_, "result": result})


def error(id_: int | str, code: int, **data: Any) -> Line:
    """An error."""
    said: dict[str, Any] = {"code": code, "message": "It failed."}
    if data:
        said["data"] = data
    return Line("server", {"jsonrpc": "2.0", "id": id_, "error": said})


def note(method: str, **params: Any) -> Line:
    """A notification of the server."""
    return Line("server", {"jsonrpc": "2.0", "method": method, "params": params})


def progress(kind: str, token: str = "t") -> Line:
    """A step."""
    return note("$/progress", token=token, value={"kind": kind})


def output(offset: int, data: bytes = b"abcde") -> Line:
    """A piece of console."""
    return note("console/output", stream="c", offset=offset, data=base64.b64encode(data).decode())


STOPPED = {"name": "n", "state": "stopped", "workspace": "/w"}
STOP = client(1, "sandbox/stop", name="n", workDoneToken="t")
EXEC = client(1, "sandbox/exec", name="n", token="e", argv=["true"])
WROTE = note("sandbox/execOutput", token="e", stream="stdout", data="YQ==")
DONE = answer(1, {"exitCode": 0, "durationMs": 5})
ATTACH = client(1, "console/attach", name="n", stream="c", offset=0)
ATTACHED = answer(1, {"offset": 0, "size": 10})
CLOSED = note("console/closed", stream="c", reason="stopped")

GOOD = {
    "progress": [STOP, progress("begin"), progress("report"), progress("end"), answer(1, STOPPED)],
    "exec": [EXEC, WROTE, WROTE, DONE],
    "console": [ATTACH, ATTACHED, output(0), output(5), CLOSED],
    "error": [STOP, error(1, 1101, kind="sandboxNotFound", name="n")],
    "cancelled": [STOP, client(None, "$/cancelRequest", id=1), error(1, -32800)],
    "unknown method": [client(1, "sandbox/fly"), error(1, -32601)],
    "wrong params": [client(1, "sandbox/stop", force="yes"), error(1, -32602)],
    "not JSON": [Line("server", {**error(0, -32700).message, "id": None})],
    "no params": [client(1, "sandbox/list"), answer(1, [STOPPED])],
    "nothing": [client(1, "console/write", stream="c", data=""), answer(1, None)],
}


@pytest.mark.parametrize("lines", GOOD.values(), ids=GOOD)
def test_what_the_protocol_allows(lines: list[Line]) -> None:
    assert problems(lines) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([Line("client", {"id": 1, "method": "sandbox/list"})], "not a message of JSON-RPC 2.0"),
        ([STOP], "sandbox/stop (1) was never answered"),
        ([STOP, STOP, answer(1, STOPPED)], "that of a request under way"),
        ([answer(1, None)], "which nobody asked"),
        ([STOP, answer(1, {**STOPPED, "cpus": None})], "$.cpus: None is not of type"),
        ([STOP, answer(1, {**STOPPED, "more": 1})], "'more' was unexpected"),
        ([STOP, answer(1, {"name": "n", "state": "stopped"})], "'workspace' is a required"),
        ([STOP, answer(1, {**STOPPED, "state": "asleep"})], "'asleep'"),
        ([STOP, error(1, 1201, kind="imageNotFound")], "does not list the error 1201"),
        ([STOP, error(1, 1102, kind="sandboxNotFound")], "has the code 1101, not 1102"),
        ([STOP, error(1, -32603)], "does not list the error -32603"),
        ([STOP, error(1, 1101, kind="sandboxNotFound", hint=5)], "5 is not of type 'string'"),
        ([client(1, "sandbox/stop", force="yes"), answer(1, STOPPED)], "is not of type 'boolean'"),
        ([client(1, "sandbox/fly"), answer(1, None)], "the client has no request sandbox/fly"),
        ([client(None, "sandbox/execSignal", token="e")], "'signal' is a required property"),
        ([note("sandbox/execInput", token="e")], "the server has no notification"),
        ([progress("begin")], "which no request under way has"),
        ([STOP, progress("report"), progress("end"), answer(1, STOPPED)], "report after end"),
        ([STOP, progress("begin"), answer(1, STOPPED)], "before the end of its progress"),
        ([EXEC, DONE, WROTE], "output of e, which does not run"),
        ([ATTACH, output(0), ATTACHED], "output of c, which is not attached"),
        ([ATTACH, ATTACHED, output(0), output(6)], "at 6, after that up to 5"),
        ([ATTACH, ATTACHED, CLOSED, output(0)], "output of c, which is not attached"),
        ([CLOSED], "the end of c, which is not attached"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_does_not_allow(lines: list[Line], problem: str) -> None:
    assert any(problem in found for found in problems(lines)), problems(lines)


def test_stand_ins_fit_their_fields() -> None:
    message = {"result": {"pid": 7, "name": "n", "ssh": {"port": 5}, "warnings": ["slow"]}}
    assert settled("server", message, {}) == {
        "result": {
            "pid": FROM_SERVER["pid"],
            "name": "n",
            "ssh": {"port": FROM_SERVER["port"]},
        }
    }
    assert settled("client", {"processId": 7, "pid": 7}, {}) == {"processId": 1000, "pid": 7}


def test_paths_become_names_and_again_paths() -> None:
    places = {"/a": "A", "/a/b": "B"}
    message = {"x": ["/a/b/c", "/a/d"], "y": {"z": "see /a"}}
    written = settled("server", message, places)
    assert written == {"x": ["${B}/c", "${A}/d"], "y": {"z": "see ${A}"}}
    assert placed(written, places) == message


def test_sizes_of_base64() -> None:
    for size in range(9):
        assert base64_size(base64.b64encode(bytes(size)).decode()) == size


def test_a_comparison_overlooks_what_is_not_promised() -> None:
    two = client(2, "host/doctor")
    some = [EXEC, two, answer(2, {"ok": True, "checks": []}), WROTE, WROTE, DONE]
    both = note("sandbox/execOutput", token="e", stream="stdout", data="YWE=")
    assert comparable([EXEC, two, both, DONE, answer(2, {"ok": False})]) == comparable(some)
    assert comparable([EXEC, two, both, DONE]) != comparable(some)
    assert comparable([EXEC, two, WROTE, DONE, some[2]]) != comparable(some)
    assert comparable([STOP, error(1, -32602, problems=["a"])]) == comparable(
        [STOP, error(1, -32602)]
    )
    assert comparable([STOP, error(1, 1101)]) != comparable([STOP, error(1, 1107)])


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What the server of these tests says."""
    path = tmp_path / "script.json"
    (tmp_path / "work").mkdir()
    value = STOPPED | {"workspace": str(tmp_path / "work"), "pid": os.getpid()}
    said = [progress("begin"), progress("report"), progress("end"), answer("ID", value)]
    path.write_text(
        json.dumps(
            {
                "sandbox/stop": [line.message for line in said],
                "sandbox/exec": [WROTE.message],
                "$/cancelRequest": [error(2, -32800).message],
            }
        )
    )
    return path


SAID = [
    STOP,
    client(2, "sandbox/exec", name="n", token="e", argv=["cat"], cwd="${WORK}"),
    client(None, "$/cancelRequest", id=2),
    client(None, "exit"),
]


def record(script: Path, out: Path, *options: str) -> int:
    """Record what `SAID` makes the server say."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "protocol/record.py"), *options, str(out), "--", *SERVER,
         str(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    decoder = Decoder()
    work = {str(script.parent / "work"): "WORK"}
    with process:
        for line, count in zip(SAID, (4, 1, 1, 0), strict=True):
            process.stdin.write(encode(placed(line.message, work)))
            process.stdin.flush()
            while count > 0:
                count -= len(list(decoder.feed(process.stdout.read1(1 << 16))))  # type: ignore[attr-defined]
        assert process.stdout.read() == b""
    return process.returncode


def test_a_recording_replays(script: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out.jsonl", tmp_path / "work"
    assert record(script, out, "--place", f"WORK={work}") == 3
    lines = read(out)
    assert [line.message for line in lines if line.sender == "client"] == [
        line.message for line in SAID
    ]
    assert str(tmp_path) not in out.read_text()
    assert f'"pid": {FROM_SERVER["pid"]}' in out.read_text()
    assert problems(lines) == []
    outcome = replay(lines, [*SERVER, str(script)], {str(work): "WORK"}, env=ENV, limit_s=60)
    assert (outcome.differences, outcome.status) == ([], 3)
    assert problems(outcome.lines) == []


def test_a_raw_recording_keeps_everything(script: Path, tmp_path: Path) -> None:
    assert record(script, tmp_path / "raw.jsonl", "--raw") == 3
    assert f'"pid": {os.getpid()}' in (tmp_path / "raw.jsonl").read_text()


def test_a_replay_shows_what_is_different(script: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out.jsonl", tmp_path / "work"
    record(script, out, "--place", f"WORK={work}")
    out.write_text(out.read_text().replace('"state": "stopped"', '"state": "lost"'))
    outcome = replay(read(out), [*SERVER, str(script)], {str(work): "WORK"}, env=ENV, limit_s=60)
    assert '-  "state": "lost",' in outcome.differences
    assert '+  "state": "stopped",' in outcome.differences


def test_a_replay_does_not_wait_for_ever(script: Path) -> None:
    with pytest.raises(AssertionError, match="line 2"):
        replay([EXEC, DONE], [*SERVER, str(script)], {}, env=ENV, limit_s=1)
    with pytest.raises(AssertionError, match="the server ended"):
        replay([EXEC, DONE], [sys.executable, "-c", "input()"], {}, env=ENV, limit_s=60)
