"""metaModel.json against LSP's own schema of meta models, schema.json against JSON schema's."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from release.npm import packages
from tests.protocol.check import ROOT, SCHEMA

MODEL: dict[str, Any] = json.loads((ROOT / "protocol/metaModel.json").read_text())


@pytest.fixture(scope="module")
def lsp() -> Draft7Validator:
    """What LSP says a meta model is."""
    path = packages() / "vscode-languageserver-protocol/metaModel.schema.json"
    schema = json.loads(path.read_text())
    return Draft7Validator({**schema, "$ref": "#/definitions/MetaModel"})


def test_the_model_is_one_of_lsp_s_format(lsp: Draft7Validator) -> None:
    assert [error.message for error in lsp.iter_errors(MODEL)] == []


def test_lsp_s_schema_sees_a_mistake(lsp: Draft7Validator) -> None:
    for name, value in (("result", {"kind": "base", "name": "int"}), ("errors", [])):
        wrong = copy.deepcopy(MODEL)
        wrong["requests"][0][name] = value
        assert not lsp.is_valid(wrong)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for method in SCHEMA["methods"].values():
        for part in ("params", "result", "errorData"):
            if part in method:
                Draft202012Validator.check_schema(method[part])
