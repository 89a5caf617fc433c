"""What went wrong, as a client is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import Fake, Serve
from tests.contract.fakes import FakeBuild
from tests.contract.service import Service

BROKEN = """
import sys
import anyio
import sandbox_rpc.server.answers as answers
from sandbox_rpc.protocol.errors import DiskFull

async def in_a_group(error):
    async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
        outer.start_soon(anyio.sleep_forever)
        inner.start_soon(fail, error)

async def fail(error):
    raise error

async def every(layout, *, stopped):
    if stopped:
        await in_a_group(DiskFull("No space left.", path="/x"))
    await in_a_group(KeyError("secret"))

answers.every = every
from sandbox_rpc.server.main import main
sys.exit(main())
"""


def test_an_error_of_ours(service: Service) -> None:
    error = service.fail("sandbox/status", {"name": "nobody"})
    assert error == {
        "code": 1101,
        "message": "There is no sandbox nobody.",
        "data": {
            "kind": "sandboxNotFound",
            "name": "nobody",
            "hint": "`sandbox list --all` shows the known ones.",
        },
    }


def test_an_unexpected_error_shows_nothing_of_the_inside(serve: Serve) -> None:
    service = serve(command=(sys.executable, "-P", "-c", BROKEN)).initialize()
    error = service.fail("sandbox/list", {})
    assert error["code"] == -32603
    assert error["data"] == {"kind": "internal", "hint": "See the server's log."}
    assert error["message"] == "KeyError: 'secret'", "the group around it is not told"
    assert "Traceback" not in json.dumps(error)
    assert ".py" not in json.dumps(error)
    assert "Traceback" in service.errors(), "the log has it"
    assert "in fail" in service.errors()


def test_an_error_in_a_task_group_is_itself(serve: Serve) -> None:
    service = serve(command=(sys.executable, "-P", "-c", BROKEN)).initialize()
    error = service.fail("sandbox/list", {"stopped": True})
    assert (error["code"], error["message"]) == (1004, "No space left.")
    assert error["data"]["kind"] == "diskFull"
    assert error["data"]["path"] == "/x"


def test_a_failed_build(serve: Serve, base: Path, fake_build: FakeBuild) -> None:
    service = serve(env=fake_build.environment(say="E: odd", status="3")).initialize()
    error = service.fail("image/build", {})
    assert error["code"] == 1206
    assert error["data"]["kind"] == "buildFailed"
    assert error["data"]["tool"] == "mmdebstrap"
    assert error["message"].startswith("mmdebstrap failed with status 3:")
    assert "E: odd" in error["message"]
    assert Path(error["data"]["log"]).is_file()
    assert error["data"]["log"] in error["data"]["hint"]
    assert list((base / "kvm-cache" / "staging").iterdir()) == []


def test_a_machine_that_runs_on_no_console(service: Service) -> None:
    error = service.fail("console/write", {"stream": "none", "data": ""})
    assert error["data"]["kind"] == "consoleGone"


def test_a_state_of_the_future(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    sandbox.change(state="running", schema=99)
    service = serve().initialize()
    assert service.fail("sandbox/status", {"name": "box"})["data"]["kind"] == "stateNewer"
    service.alive()


PORTS = (("port/forward", {"guestPort": 80}), ("port/close", {"hostPort": 80}))


@pytest.mark.parametrize("port", [0, -1, 65536, 2**40])
def test_a_port_that_is_none(fake: Fake, serve: Serve, port: int) -> None:
    fake()
    service = serve().initialize()
    for method, field in (
        ("port/forward", "guestPort"), ("port/forward", "hostPort"), ("port/close", "hostPort"),
    ):  # fmt: skip
        if (method, field, port) == ("port/forward", "hostPort", 0):
            continue  # leaves the choice to us
        error = service.fail(method, {"name": "box", "guestPort": 80, field: port})
        assert (error["code"], error["data"]["kind"]) == (1108, "settingInvalid")
        assert error["data"]["setting"] == field
        assert error["data"]["hint"] == "Ports are numbers from 1 to 65535."


def test_a_port_of_a_sandbox_that_does_not_run(serve: Serve, fake: Fake, tmp_path: Path) -> None:
    service = serve().initialize()
    for target in ({"name": "nobody"}, {"workspace": str(tmp_path)}):
        for method, ports in (
            ("port/forward", {"guestPort": 80}),
            ("port/close", {"hostPort": 80}),
        ):
            assert service.fail(method, {**target, **ports})["data"]["kind"] == "sandboxNotFound"
    sandbox = fake()
    for method, ports in PORTS:
        # No supervisor answers, whatever its files say.
        error = service.fail(method, {"name": "box", **ports})
        assert (error["code"], error["data"]["kind"]) == (1103, "sandboxNotRunning")
    sandbox.change(state="stopped")
    for method, ports in PORTS:
        error = service.fail(method, {"workspace": str(sandbox.workspace), **ports})
        assert (error["code"], error["data"]["kind"]) == (1103, "sandboxNotRunning")
        assert error["data"]["hint"] == f"Start it: sandbox start {sandbox.workspace}"
    service.alive()
