"""The service over real machines, and clients of it that nobody here wrote."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from release import npm
from sandbox_rpc.host import locks
from tests.contract.service import SERVE, Message, Service
from tests.protocol.check import EXAMPLES, problems, read
from tests.protocol.replay import replay
from tests.vm.conftest import Running
from tests.vm.host import LIMIT_S, Host, wait_for

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
PROGRAMS = Path(SERVE[0]).parent
CHECK = "#!/bin/sh\necho hello from $(id -un)\nexit 3\n"


def connect(host: Host) -> Service:
    """A service of this user that has shaken hands."""
    return Service(host.base, env=host.environment).initialize()


@pytest.fixture
def service(host: Host) -> Iterator[Service]:
    """A service of the user who runs the tests."""
    service = connect(host)
    yield service
    service.end()
    assert "Traceback" not in service.errors()


def progress(service: Service, token: str, phase: str) -> list[dict[str, Any]]:
    """What is reported until a phase begins."""
    values: list[dict[str, Any]] = []

    def wanted(message: Message) -> bool:
        return message.get("method") == "$/progress" and message["params"]["token"] == token

    while not values or values[-1].get("phase") != phase:
        values.append(service.take(wanted, LIMIT_S)["params"]["value"])
    return values


def changes(service: Service, name: str, state: str) -> list[dict[str, Any]]:
    """The values of a sandbox until it is in a state."""
    values: list[dict[str, Any]] = []
    while not values or values[-1]["state"] != state:
        value = service.news("sandbox/didChange", LIMIT_S)
        if value["name"] == name:
            values.append(value)
    return values


def text(data: str) -> str:
    return base64.b64decode(data, validate=True).decode(errors="replace")


@pytest.fixture(scope="module")
def machine(host: Host) -> Running:
    """A sandbox whose first client was killed while it started, as a second client found it."""
    workspace = host.workspace("service")
    (workspace / "check").write_text(CHECK)
    (workspace / "check").chmod(0o755)
    first, second = connect(host), connect(host)
    try:
        cold = {"workspace": str(workspace), "warm": "never", "workDoneToken": "t"}
        first.ask("sandbox/start", cold)
        begun = progress(first, "t", "boot")
        assert begun[0]["kind"] == "begin"
        assert begun[0]["title"] == "Starting sandbox"
        first.process.kill()
        first.process.wait()
        # Known to the other from the news alone.
        name = changes(second, "sandbox-service", "starting")[0]["name"]
        params = {"workspace": str(workspace), "workDoneToken": 5}
        value = second.call("sandbox/start", params, LIMIT_S)
        assert value["name"] == name
        assert value["state"] == "running"
        said = [m["params"]["value"] for m in second.heard if m["method"] == "$/progress"]
        assert said[0]["kind"] == "begin"
        assert said[-1] == {"kind": "end"}
        news = changes(second, name, "running")
        revisions = [one["revision"] for one in news]
        assert revisions == sorted(set(revisions))
        # The news of the change came before the answer to the request that made it.
        assert news[-1] == value
    finally:
        for service in (first, second):
            service.end()
    return Running(host, workspace, value)


def test_a_start_of_what_runs(service: Service, machine: Running) -> None:
    """It answers at once, and reports nothing: there was nothing to do."""
    params = {"workspace": str(machine.workspace), "workDoneToken": "t"}
    assert service.call("sandbox/start", params)["pid"] == machine.value["pid"]
    assert [m for m in service.heard if m["method"] == "$/progress"] == []


def test_status_and_list_agree_with_the_command_line(service: Service, machine: Running) -> None:
    by_name = service.call("sandbox/status", {"name": machine.name})
    inside = machine.workspace / "inside"
    inside.mkdir(exist_ok=True)
    assert service.call("sandbox/status", {"workspace": str(inside)}) == by_name
    assert by_name in service.call("sandbox/list", {})
    assert machine.host.json("status", machine.name)["revision"] == by_name["revision"]
    assert service.call("image/list")[0]["inUseBy"].count(machine.name) == 1
    error = service.fail("image/remove", {"ref": by_name["image"]})
    assert error["data"]["kind"] == "imageInUse"


def test_console(service: Service, machine: Running) -> None:
    """All from power-on, what is typed, its answer; the offsets are those of the file."""
    attach = {"name": machine.name, "stream": "a", "offset": 0}
    assert service.call("console/attach", attach)["offset"] == 0
    command = base64.b64encode(b"echo service-$((40 + 2))\r").decode()
    heard = bytearray()
    for awaited in (b"dev@sandbox-service", b"service-42"):
        while awaited not in heard:
            piece = service.news("console/output", LIMIT_S)
            assert piece["offset"] == len(heard)
            heard += base64.b64decode(piece["data"])
        if awaited != b"service-42":
            service.call("console/write", {"stream": "a", "data": command})
    log = Path(machine.value["consoleLog"]).read_bytes()
    assert log.startswith(heard)
    resized = service.call("console/resize", {"stream": "a", "columns": 132, "rows": 43})
    assert resized == {"applied": True}
    assert machine.sh("stty -F /dev/ttyS0 size", check=False).out.strip() in ("43 132", "")
    service.call("console/detach", {"stream": "a"})


def test_exec(service: Service, machine: Running) -> None:
    """Output of both kinds, input, a status that is a result."""
    argv = ["sh", "-c", 'read line; echo "out $line"; echo "err $0" >&2; exit 7', "it's"]
    run = {"name": machine.name, "token": "x", "argv": argv, "stdin": True}
    id_ = service.ask("sandbox/exec", run)
    data = base64.b64encode(b"typed\n").decode()
    # Right behind the request, and the end after it.
    service.send("sandbox/execInput", {"token": "x", "data": data})
    service.send("sandbox/execInput", {"token": "x", "eof": True})
    result = service.reply(id_, LIMIT_S)["result"]
    assert result["exitCode"] == 7
    assert result["durationMs"] >= 0
    written = {"stdout": "", "stderr": ""}
    for message in service.heard:
        assert message["method"] == "sandbox/execOutput"
        written[message["params"]["stream"]] += text(message["params"]["data"])
    assert written == {"stdout": "out typed\n", "stderr": "err it's\n"}
    assert service.call("sandbox/exec", {**run, "token": "y", "argv": ["./check"]})["exitCode"] == 3


def test_exec_of_a_token_in_use(service: Service, machine: Running) -> None:
    run = {"name": machine.name, "token": "x", "argv": ["cat"], "stdin": True}
    first = service.ask("sandbox/exec", run)
    error = service.fail("sandbox/exec", run)
    assert error["code"] == -32602
    service.send("sandbox/execInput", {"token": "x", "eof": True})
    assert service.reply(first, LIMIT_S)["result"]["exitCode"] == 0


def test_exec_cancelled(service: Service, machine: Running) -> None:
    run = {"name": machine.name, "token": "x", "argv": ["sh", "-c", "echo a; sleep 7654"]}
    id_ = service.ask("sandbox/exec", run)
    service.news("sandbox/execOutput", LIMIT_S)
    service.send("$/cancelRequest", {"id": id_})
    assert service.reply(id_, LIMIT_S)["error"]["code"] == -32800
    assert machine.sh("pgrep -f 'sleep 765[4]'", check=False).status == 1


def test_exec_of_a_client_that_does_not_read(service: Service, machine: Running) -> None:
    """It waits in the guest; others go on, and nothing is lost when it reads again."""
    size = 8 << 20
    script = f"head -c {size} /dev/zero | tr '\\0' x"
    run = {"name": machine.name, "token": "x", "argv": ["sh", "-c", script]}
    id_ = service.ask("sandbox/exec", run)
    service.wait_until_stuck()
    other = connect(machine.host)
    try:
        quick = {"name": machine.name, "token": "x", "argv": ["true"]}
        assert other.call("sandbox/exec", quick, LIMIT_S)["exitCode"] == 0
    finally:
        other.end()
    assert service.reply(id_, LIMIT_S)["result"]["exitCode"] == 0
    assert sum(len(text(m["params"]["data"])) for m in service.heard) == size


def blocks() -> dict[str, str]:
    """The scripts of docs/scripting.md by language."""
    document = (ROOT / "docs" / "scripting.md").read_text()
    found = re.findall(r"^```(\w+)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert len(found) == 4
    return dict(found)


@pytest.mark.parametrize("language", ["python", "js", "lua", "sh"])
def test_the_scripts_of_the_documents(machine: Running, tmp_path: Path, language: str) -> None:
    """Each as it stands there, in the folder; but for its stop, since all share one machine."""
    source = blocks()[language]
    lines = source.splitlines()
    assert sum("stop" in line and machine.name not in line for line in lines) == 1
    script = tmp_path / {"js": "check.mjs"}.get(language, f"check.{language}")
    script.write_text("\n".join(line for line in lines if "stop" not in line))
    commands = {
        "python": [SERVE[0], "-P", str(script)],
        "js": ["node", str(script)],
        "lua": ["nvim", "--headless", "-u", "NONE", "-c", f"luafile {script}", "-c", "cquit"],
        "sh": ["sh", str(script)],
    }
    env = {"PATH": f"{PROGRAMS}:{npm.environment()['PATH']}"}
    if language == "js":
        (tmp_path / "node_modules").symlink_to(npm.packages())
    done = machine.host.call(commands[language], cwd=machine.workspace, env=env)
    assert done.out.replace("\r\n", "\n") == "hello from dev\nexit status 3\n"


def test_a_stop_by_the_command_line(service: Service, machine: Running) -> None:
    """The news reach a client that had no part in it, and its console is closed."""
    service.call("console/attach", {"name": machine.name, "stream": "a"})
    machine.host.run("stop", machine.name)
    values = changes(service, machine.name, "stopped")
    assert values[0]["state"] == "stopping"
    assert "ssh" not in values[-1]
    assert service.news("console/closed")["reason"] == "stopped"
    again = service.call("sandbox/stop", {"name": machine.name})
    assert again["state"] == "stopped"
    run = {"name": machine.name, "token": "x", "argv": ["true"]}
    assert service.fail("sandbox/exec", run)["data"]["kind"] == "sandboxNotRunning"


def test_a_start_that_is_cancelled(service: Service, host: Host) -> None:
    """When the answer comes, nothing is left of it."""
    workspace = host.workspace("given-up")
    params = {"workspace": str(workspace), "warm": "never", "workDoneToken": "t"}
    id_ = service.ask("sandbox/start", params)
    progress(service, "t", "boot")
    pid = host.qemu_pid("sandbox-given-up")
    service.send("window/workDoneProgress/cancel", {"token": "t"})
    assert service.reply(id_, LIMIT_S)["error"]["code"] == -32800
    assert not Path(f"/proc/{pid}").exists()
    assert not locks.is_held(host.home_of("sandbox-given-up").vm_lock)
    assert not host.room_of("sandbox-given-up").folder.exists()
    changes(service, "sandbox-given-up", "stopped")
    status = service.call("sandbox/status", {"workspace": str(workspace)})
    assert status["state"] == "stopped"
    ends = [m for m in service.heard if m.get("params", {}).get("value") == {"kind": "end"}]
    assert len(ends) == 1


class Steps:
    """A client under way, and the steps it has told."""

    def __init__(self, host: Host, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        self._out, self._err = log.open("wb"), log.with_suffix(".err").open("wb")
        self.process = host.popen(argv, env=env, stdout=self._out, stderr=self._err)

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """The steps by name."""
        lines = self.log.read_text().splitlines()
        steps = [json.loads(line) for line in lines if line.startswith("{")]
        return {step["step"]: step for step in steps}

    def until(self, step: str) -> None:
        """Wait for a step."""

        def reached() -> bool:
            gone = self.process.poll() is not None
            assert step in self.told or not gone, self.story()
            return step in self.told

        wait_for(reached, f"the step {step}", seconds=LIMIT_S)

    def story(self) -> str:
        return f"{self.log.read_text()}\n{self.log.with_suffix('.err').read_text()}"

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()


def test_clients_that_nobody_here_wrote(host: Host, tmp_path: Path) -> None:
    """Neovim and vscode-jsonrpc, each through everything, at the same time on one machine."""
    workspace, other = host.workspace("editors"), host.workspace("editors-other")
    go = tmp_path / "go"
    shutil.copy(CLIENTS / "vscode.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(npm.packages())
    program = str(PROGRAMS / "sandbox-rpc")
    path = {"PATH": npm.environment()["PATH"]}
    nvim = Steps(
        host,
        ["nvim", "--headless", "-u", "NONE", "-c", f"luafile {CLIENTS / 'nvim.lua'}", "-c", "cq"],
        {"SERVICE": program, "WORKSPACE": str(workspace), "OTHER": str(other), "GO": str(go)},
        tmp_path / "nvim.out",
    )
    vscode = Steps(
        host,
        ["node", str(tmp_path / "vscode.mjs"), program, str(workspace), str(go)],
        path,
        tmp_path / "vscode.out",
    )
    clients = {"nvim": nvim, "vscode": vscode}
    try:
        nvim.until("exec")
        vscode.until("cancelled")
        go.touch()
        for client in clients.values():
            assert client.process.wait(LIMIT_S) == 0, client.story()
        for label, client in clients.items():
            told = client.told
            assert "error" not in told, client.story()
            assert told["initialized"]["server"] == "sandbox-rpc"
            assert told["started"]["name"] == "sandbox-editors"
            assert told["started"]["state"] == "running"
            assert told["console"] == {"step": "console", "closed": "detached"}
            assert told["exec"]["exitCode"] == 3
            assert told["stopped"]["states"][-1] == "stopped"
            assert told["ended"]["status"] == 0, label
        assert nvim.told["exec"]["output"] == "it's\n"
        assert vscode.told["exec"]["output"] == "input\nit's\n"
        assert set(nvim.told["cancelled"]["states"][:-1]) == {"starting"}
        assert nvim.told["cancelled"]["states"][-1] == "stopped"
        assert vscode.told["cancelled"] == {"step": "cancelled", "code": -32800, "left": False}
        kinds = vscode.told["started"]["kinds"]
        assert kinds[0] == "begin"
        assert kinds[-1] == "end"
        assert len(kinds) > 3
        assert "login" in vscode.told["started"]["phases"]
    finally:
        for client in clients.values():
            client.end()


def test_the_recorded_session(host: Host) -> None:
    """The example of a machine's whole life is still what happens."""
    work = host.workspace("recorded")
    (work / "project").mkdir()
    check = work / "project" / "check"
    check.write_text('#!/bin/sh\nread line\necho "$line in $PWD"\nexit 3\n')
    check.chmod(0o755)
    outcome = replay(
        read(EXAMPLES / "machine.jsonl"),
        SERVE,
        {str(work): "WORK", str(host.base): "CACHE"},
        env=host.environment,
        limit_s=LIMIT_S,
    )
    assert outcome.differences == []
    assert problems(outcome.lines) == []
    assert outcome.status == 0


def test_the_clients_have_left_no_service(host: Host) -> None:
    """No process of the service outlives its client."""
    wait_for(lambda: not services_of(host), "the end of the services")


def services_of(host: Host) -> list[int]:
    """The processes of a user's services."""
    mine = os.fsencode(f"SANDBOX_CACHE_BASE={host.base}")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if b"--stdio" in words and mine in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found
