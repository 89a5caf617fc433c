"""The method table against the values, the errors, the settings and the server."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import anyio
import attrs
import pytest
from jsonschema import Draft202012Validator

from protocol.metamodel import source_model
from protocol.schema import schema
from sandbox_rpc.config.setting import Kind, Setting
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.protocol import (
    convert,
    errors,
    images,
    lifecycle,
    network,
    streams,
    templates,
    types,
    workspace,
)
from sandbox_rpc.protocol.errors import ERRORS
from sandbox_rpc.protocol.methods import NOTIFICATIONS, REQUESTS, VERSION
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.server.progress import reporting
from sandbox_rpc.server.rpc import PARAMS, Call, InitializeParams, Server
from sandbox_rpc.server.serve import Session

SCHEMA = schema(source_model())
OFFERED = [setting for setting in SETTINGS if "start" in setting.commands]
"""Settings that a start takes."""
OWN = {"workspace", "name", "force", "user_settings", "work_done_token"}
"""Fields of StartParams that are no settings of this start."""
WIRE: dict[Kind, type] = {
    Kind.SIZE: int,
    Kind.COUNT: int,
    Kind.SECONDS: float,
    Kind.BOOL: bool,
    Kind.CHOICE: str,
    Kind.TEXT: str,
    Kind.PATH: str,
    Kind.FILE: str,
}


def fits(name: str, value: Any) -> None:
    """Assert that a value fits a definition of the schema."""
    Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{name}"}).validate(value)


def test_methods_are_unique_and_named_alike() -> None:
    names = [entry.method for entry in (*REQUESTS, *NOTIFICATIONS)]
    assert len(set(names)) == len(names)
    for name in names:
        noun, verb = name.split("/")
        assert noun.isalpha()
        assert verb.isalpha()


def test_params_and_results_are_values_of_the_protocol() -> None:
    modules = (types, images, templates, network, workspace, streams)
    values = [one for module in modules for one in vars(module).values()]
    known = {kind for kind in values if inspect.isclass(kind) and attrs.has(kind)}
    for request in REQUESTS:
        assert request.params is None or request.params in known, request.method
        options = typing.get_args(request.result) or (request.result,)
        assert set(options) <= known | {None}, request.method
    assert {note.params for note in NOTIFICATIONS} <= known


def test_every_error_that_is_named_exists() -> None:
    for request in (*REQUESTS, *lifecycle.REQUESTS):
        for error in request.errors:
            assert ERRORS[error.code] is error, request.method
            assert getattr(errors, error.__name__) is error
        assert len(set(request.errors)) == len(request.errors), request.method


def test_what_takes_long_takes_a_token() -> None:
    """And what takes a token reports."""
    for request in REQUESTS:
        takes = request.params is not None and "work_done_token" in attrs.fields_dict(
            request.params
        )
        assert request.progress == takes, request.method


@pytest.mark.parametrize("setting", OFFERED, ids=lambda setting: str(setting.key))
def test_every_setting_of_a_start_is_a_param(setting: Setting) -> None:
    fields = typing.get_type_hints(types.StartParams)
    assert fields.get(setting.attribute) == WIRE[setting.kind] | None


def test_every_param_of_a_start_is_a_setting() -> None:
    fields = {one.name for one in attrs.fields(types.StartParams)}
    assert fields == OWN | {setting.attribute for setting in OFFERED}


def test_the_server_reads_the_params_of_every_method() -> None:
    heard = (*NOTIFICATIONS, *lifecycle.NOTIFICATIONS)
    assert set(PARAMS) == {
        *(request.method for request in (*REQUESTS, *lifecycle.REQUESTS)),
        *(note.method for note in heard if note.to_server),
    }


def test_what_initialize_answers_is_in_the_schema() -> None:
    async def ask() -> Any:
        return await Session(Server()).initialize(InitializeParams(), Call(1))

    answer = anyio.run(ask)
    fits("InitializeResult", answer)
    # Nothing more than what is described, and the same version.
    said = convert.from_wire(answer, lifecycle.InitializeResult)
    assert convert.to_wire(said) == answer
    assert said.capabilities.experimental.sandbox.protocol_version == VERSION


def test_progress_is_in_the_schema() -> None:
    sent: list[Any] = []
    with reporting(lambda method, params: sent.append((method, params)), "t", "Title") as report:
        report(Progress("boot", "Booting", 20))
        report(Progress("login", "Logging in"))
    assert [method for method, _ in sent] == ["$/progress"] * 3
    for _, params in sent:
        fits("ProgressParams", params)
        value = convert.from_wire(params, lifecycle.ProgressParams)
        assert convert.to_wire(value) == params
    assert [params["value"]["kind"] for _, params in sent] == ["begin", "report", "end"]


@pytest.mark.parametrize("error", ERRORS.values(), ids=lambda error: str(error.__name__))
def test_errors_on_the_wire_are_in_the_schema(error: type[errors.SandboxError]) -> None:
    wire = error("It happened.", hint="Do this.", path="/a").to_wire()
    fits("ErrorData", wire["data"])
    fits("SandboxErrorCode", wire["code"])
