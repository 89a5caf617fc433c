"""Params: what fits is taken, what does not is named by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.protocol.methods import REQUESTS
from tests.contract.service import Service


@pytest.mark.parametrize(
    ("method", "params", "problem"),
    [
        ("image/remove", {}, "required field missing @ params.ref"),
        ("image/remove", ..., "required field missing @ params.ref"),
        ("image/remove", None, "required field missing @ params.ref"),
        ("sandbox/start", {"name": "x"}, "required field missing @ params.workspace"),
        ("sandbox/status", {"name": [1]}, "params.name"),
        ("sandbox/status", {"name": 1}, "params.name"),
        ("sandbox/status", {"name": {"a": 1}}, "params.name"),
        ("sandbox/start", {"workspace": "/", "memoryMib": "12"}, "params.memoryMib"),
        ("sandbox/start", {"workspace": "/", "memoryMib": 1.5}, "params.memoryMib"),
        ("sandbox/start", {"workspace": "/", "memoryMib": True}, "params.memoryMib"),
        ("sandbox/start", {"workspace": "/", "workDoneToken": 1.5}, "params.workDoneToken"),
        ("sandbox/start", {"workspace": "/", "workDoneToken": []}, "params.workDoneToken"),
        ("sandbox/start", {"workspace": "/", "boxNamespace": 5}, "params.boxNamespace"),
        ("sandbox/start", {"workspace": "/", "userSettings": 3}, "params.userSettings"),
        (
            "sandbox/start",
            {"workspace": "/", "userSettings": {"workspace.read_only": [1]}},
            "params.userSettings['workspace.read_only']",
        ),
        ("sandbox/stop", {"name": "x", "force": 1}, "params.force"),
        ("sandbox/list", {"stopped": "yes"}, "params.stopped"),
        ("console/attach", {"name": "x", "stream": "s", "offset": "0"}, "params.offset"),
        ("console/attach", {"name": "x"}, "params.stream"),
        ("console/write", {"stream": "s", "data": "not base64!"}, "params.data"),
        ("console/resize", {"stream": "s", "columns": 80}, "params.rows"),
        ("port/forward", {"name": "x"}, "required field missing @ params.guestPort"),
        ("port/forward", {"name": "x", "guestPort": "80"}, "params.guestPort"),
        ("port/forward", {"name": "x", "guestPort": 80, "hostPort": 1.5}, "params.hostPort"),
        ("port/forward", {"guestPort": 80}, "params"),
        ("port/close", {"name": "x"}, "required field missing @ params.hostPort"),
        ("port/close", {"hostPort": 80}, "params"),
        ("sandbox/status", {}, "params"),
        ("sandbox/stop", {}, "params"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_misfit(service: Service, method: str, params: Any, problem: str) -> None:
    error = service.fail(method, params)
    assert error["code"] == -32602
    assert error["data"]["kind"] == "invalidParams"
    (found,) = error["data"]["problems"]
    assert problem in found
    assert "traceback" not in error["data"]
    service.alive()


def test_all_misfits_are_named(service: Service) -> None:
    error = service.fail("sandbox/start", {"memoryMib": "12", "cpus": [1], "diskMib": 1.5})
    found = " ".join(error["data"]["problems"])
    for field in ("workspace", "memoryMib", "cpus", "diskMib"):
        assert f"params.{field}" in found
    assert "StartParams" not in found


WITH_FIELDS = [request.method for request in REQUESTS if request.params is not None]


@pytest.mark.parametrize("params", [[], [1], "text", 5, True])
@pytest.mark.parametrize("method", WITH_FIELDS)
def test_params_that_are_no_object(service: Service, method: str, params: Any) -> None:
    error = service.fail(method, params)
    assert error["code"] == -32602
    assert error["data"]["problems"]


@pytest.mark.parametrize("params", [..., None, {}, {"x": 1}])
def test_a_method_without_params(service: Service, params: Any) -> None:
    assert service.call("image/list", params) == []


@pytest.mark.parametrize("params", [..., None, {}, {"unknown": [1, {"a": None}]}])
def test_absent_and_unknown_fields(service: Service, params: Any) -> None:
    """A newer client may say more than we know."""
    assert service.call("sandbox/list", params) == []


def test_params_that_contain_the_word_jsonrpc(service: Service) -> None:
    assert service.call("sandbox/list", {"jsonrpc": "2.0", "stopped": True}) == []
    inner = {"jsonrpc": "2.0", "id": 1, "method": "exit"}
    assert service.call("sandbox/list", {"x": inner}) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", 1102),
        ("/no/such/folder", 1102),
        ("a\u0000b", 1102),
        ("/\ud800", 1102),
        ("/dev/null", 1102),
        ("/" + "x" * 5000, 1102),
        ("/é𝄞", 1102),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("method", ["sandbox/start", "sandbox/status", "sandbox/stop"])
def test_a_folder_that_is_none(service: Service, method: str, path: str, code: int) -> None:
    error = service.fail(method, {"workspace": path})
    assert (error["code"], error["data"]["kind"]) == (code, "workspaceRefused")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\u0000b", "\ud800", "x" * 300, "lock", "-x"])
def test_a_name_that_is_none(service: Service, name: str) -> None:
    for method, params in (
        ("sandbox/status", {"name": name}),
        ("sandbox/stop", {"name": name}),
        ("console/attach", {"name": name, "stream": "s"}),
        ("port/forward", {"name": name, "guestPort": 80}),
        ("port/close", {"name": name, "hostPort": 80}),
    ):
        assert service.fail(method, params)["data"]["kind"] == "nameInvalid"


@pytest.mark.parametrize("ref", ["", "..", "/etc/passwd", "a\u0000b", "\ud800", "x" * 300])
def test_an_image_that_is_none(service: Service, ref: str) -> None:
    assert service.fail("image/remove", {"ref": ref})["data"]["kind"] == "imageNotFound"
    assert service.fail("image/build", {"ref": ref})["data"]["kind"] == "imageNotFound"


def test_a_setting_that_is_none(service: Service, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for setting in ({"memoryMib": -1}, {"accelerator": "warp"}, {"cpus": 2**70}):
        error = service.fail("sandbox/start", {"workspace": str(tmp_path / "work"), **setting})
        assert error["data"]["kind"] == "settingInvalid"
