"""The protocol's files are those of the source, and the generator refuses what says too little."""

from __future__ import annotations

import enum
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen
from jsonschema import Draft202012Validator

from protocol import generate
from protocol.metamodel import Unclear, model, references, source_model
from protocol.schema import schema
from protocol.typescript import typescript
from sandbox_rpc.protocol.errors import ERRORS, SandboxError, SandboxNotFound
from sandbox_rpc.protocol.lifecycle import ErrorData
from sandbox_rpc.protocol.methods import Notification, Request
from sandbox_rpc.protocol.types import LARGE

ROOT = Path(__file__).resolve().parents[3]
SOURCE = source_model()


def test_the_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "protocol/generate.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_shows_the_drift_and_names_the_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    page = tmp_path / "protocol/reference.md"
    page.write_text(page.read_text().replace("Type on the console.", "Type."))
    capsys.readouterr()
    assert generate.main(["--check"], tmp_path) == 1
    said = capsys.readouterr()
    assert "-Type.\n+Type on the console.\n" in said.out
    assert f"Repair: {generate.COMMAND}" in said.err
    page.unlink()
    assert generate.main(["--check"], tmp_path) == 1


def test_everything_comes_from_the_model_alone() -> None:
    """So a client author who has metaModel.json has all of it."""
    altered = json.loads(json.dumps(SOURCE).replace("Type on the console.", "Press keys."))
    written = generate.files(altered)
    assert all("Press keys." in written[name] for name in written if "schema" not in name)
    assert generate.files(SOURCE) == generate.files(json.loads(json.dumps(SOURCE)))


@frozen
class Bare:
    """A value."""

    silent: int


@frozen
class Untold:
    size: int
    """Bytes."""


@frozen
class Nullable:
    """A value."""

    size: int | None
    """Bytes."""


@frozen
class Strange:
    """A value."""

    size: complex
    """Bytes."""


class Silent(enum.StrEnum):
    """Words."""

    WORD = "word"


@frozen
class Far:
    """A value."""

    other: Untold
    """Another."""


@frozen
class Tokenless:
    """A value."""

    name: str
    """Its name."""


class Speechless(SandboxError):
    code = 1999


def made(*classes: type, requests: tuple[Request, ...] = (), **more: Any) -> dict[str, Any]:
    """A small model."""
    return model(
        version="1.0",
        requests=requests,
        notifications=more.get("notifications", ()),
        classes=classes,
        errors=more.get("errors", ()),
    )


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: made(Bare), "Bare.silent has no docstring"),
        (lambda: made(Untold), "Untold has no docstring"),
        (lambda: made(Silent), "Silent.WORD has no docstring"),
        (lambda: made(errors=(Speechless,)), "Speechless has no docstring"),
        (lambda: made(requests=(Request("a/b", None, None, ""),)), "a/b has no docstring"),
        (lambda: made(Nullable), "null never goes over the wire"),
        (lambda: made(Strange), "has no form on the wire"),
        (lambda: made(Far), "Untold is used and in none of"),
        (
            lambda: made(
                Tokenless, requests=(Request("a/b", Tokenless, None, "Do.", progress=True),)
            ),
            "a/b reports progress",
        ),
    ],
)
def test_what_says_too_little_is_refused_with_a_sentence(build: Any, sentence: str) -> None:
    with pytest.raises(Unclear, match=re.escape(sentence)):
        build()


class Colour(enum.StrEnum):
    """Which colour."""

    DARK_RED = "dark-red"
    """As wine."""


@frozen
class Full:
    """Every kind of field
    in one value.
    """

    first_name: str
    """A name
    over two lines."""
    colour: Colour = Colour.DARK_RED
    """Its colour."""
    size_bytes: int | None = field(default=None, metadata=LARGE)
    """Its size in bytes."""
    parts: list[int | str] = field(factory=list)
    """What it is made of.

    @since 1.3
    """
    names: dict[str, bool] | None = None
    """By name."""


FULL = made(
    Full,
    Colour,
    ErrorData,
    requests=(Request("paint/mix", Full, list[Full], "Mix.", (SandboxNotFound,)),),
    notifications=(Notification("paint/$dried", Full, "Dry."),),
    errors=(SandboxNotFound,),
)


def test_the_model_of_a_value() -> None:
    full = FULL["structures"][0]
    assert full["documentation"] == "Every kind of field in one value."
    by_name = {one["name"]: one for one in full["properties"]}
    assert by_name["firstName"] == {
        "name": "firstName",
        "type": {"kind": "base", "name": "string"},
        "documentation": "A name over two lines.",
        "since": "1.0",
    }
    assert by_name["colour"]["optional"]
    assert by_name["colour"]["documentation"] == 'Its colour. Default: `"dark-red"`.'
    assert by_name["sizeBytes"]["type"] == {"kind": "reference", "name": "LargeInteger"}
    assert by_name["parts"]["since"] == "1.3"
    assert by_name["parts"]["documentation"] == "What it is made of. Default: `[]`."
    assert by_name["names"]["type"]["kind"] == "map"
    [request] = FULL["requests"]
    assert request["documentation"] == "Mix.\n\n@throws SandboxNotFound"
    assert FULL["enumerations"][0]["values"][0]["name"] == "DarkRed"


def test_the_schema_of_a_value() -> None:
    made = schema(FULL)
    assert made["methods"]["paint/mix"]["errors"] == ["sandboxNotFound"]
    fits = Draft202012Validator({"$defs": made["$defs"], "$ref": "#/$defs/Full"}).is_valid
    assert fits({"firstName": "a"})
    assert fits({"firstName": "a", "parts": [1, "b"], "names": {"c": True}, "more": 1})
    assert fits({"firstName": "a", "sizeBytes": 2**53 - 1})
    for wrong in (
        {},
        {"firstName": None},
        {"firstName": "a", "colour": "blue"},
        {"firstName": "a", "colour": None},
        {"firstName": "a", "parts": [1.5]},
        {"firstName": "a", "names": {"c": 1}},
        {"firstName": "a", "sizeBytes": 2**53},
    ):
        assert not fits(wrong), wrong


def test_the_typescript_of_a_value() -> None:
    text = typescript(FULL)
    assert "  firstName: string;" in text
    assert "  parts?: (number | string)[];" in text
    assert "  names?: Record<string, boolean>;" in text
    assert 'export type Colour = "dark-red";' in text
    assert (
        "export const PaintMixRequest = "
        'new RequestType<Full, Full[], ErrorData>("paint/mix");' in text
    )
    assert 'PaintDriedNotification = new NotificationType<Full>("paint/$dried");' in text


def test_all_errors_have_their_code_in_the_model() -> None:
    [codes] = [one for one in SOURCE["enumerations"] if one["name"] == "SandboxErrorCode"]
    assert {one["name"]: one["value"] for one in codes["values"]} == {
        error.__name__: code for code, error in ERRORS.items()
    }


def test_every_value_is_used() -> None:
    """What no message can hold would be in the documents for nothing."""
    structures = {one["name"]: one for one in SOURCE["structures"]}
    found: set[str] = set()
    left = {*references(SOURCE["requests"]), *references(SOURCE["notifications"])}
    while left:
        name = left.pop()
        found.add(name)
        left |= {*references(structures.get(name))} - found
    enumerations = {one["name"] for one in SOURCE["enumerations"]} - {"SandboxErrorCode"}
    assert found == {*structures, *enumerations, "LargeInteger"}


def test_links_of_the_reference_lead_somewhere() -> None:
    page = (ROOT / "protocol/reference.md").read_text()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]
    assert len(set(anchors)) == len(anchors)
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert links
    assert set(links) <= set(anchors)


def test_the_readme_names_every_file_and_no_missing_one() -> None:
    readme = (ROOT / "protocol/README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / "protocol" / target).exists(), target
    for name in ("metaModel.json", "schema.json", "reference.md", "compatible.py", "record.py"):
        assert f"({name})" in readme
