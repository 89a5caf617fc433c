"""The editor's settings, from the one table: part of the extension's package.json, and a table.

A setting of a start that the protocol carries is one of the editor's, with the same name. All are
of the scope `application`: no folder can set them, nor can the machine that a remote window shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from sandbox_rpc.config.setting import Kind, Setting
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.types import StartParams

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "editor-extension/package.json"
TABLE = "editor-extension/src/startSettings.ts"
SECTION = "kvmSandbox"

TABLE_HEAD = """\
// Written by docs/generate.py from sandbox_rpc/config/settings.py; changes here are lost.

interface StartSetting {
  readonly key: string;
  readonly field: string;
}

/** The editor's settings of a start, and what they are called in `StartParams`. */
export const START_SETTINGS: readonly StartSetting[] = [
"""

Property = dict[str, Any]

OWN: dict[str, Property] = {
    "remote.newWindow": {
        "type": "boolean",
        "default": True,
        "markdownDescription": "Open the sandbox in a window of its own; else in this one.",
    },
    "ssh.include": {
        "type": "string",
        "enum": ["ask", "always", "never"],
        "enumDescriptions": [
            "Ask once.",
            "Add the line without a question.",
            "Leave the file alone; sandboxes open in a terminal.",
        ],
        "default": "ask",
        "markdownDescription": "Whether one `Include` line may be added at the top of your SSH "
        "configuration, so that remote windows know the sandboxes' names.",
    },
    "ports.offer": {
        "type": "boolean",
        "default": True,
        "markdownDescription": "Say when a program in the guest listens on a port, and offer to "
        "open it. Ports are never forwarded by themselves.",
    },
    "server.command": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "markdownDescription": "The service to run instead of the bundled one, with its arguments: "
        '`["/opt/sandbox/bin/sandbox-rpc", "--stdio"]`.',
    },
    "server.interpreter": {
        "type": "string",
        "default": "",
        "markdownDescription": "The Python, 3.11 or newer, that runs the bundled service. Empty: "
        "`python3` on PATH, or another one found there.",
    },
    "trace.server": {
        "type": "string",
        "enum": ["off", "messages", "verbose"],
        "default": "off",
        "markdownDescription": "Write what the extension and the service say to each other into "
        "the log, at its level Trace.",
    },
}
"""Settings of the extension itself."""


def offered() -> list[tuple[Setting, str]]:
    """The settings of a start that the editor has, with their names on the wire."""
    fields = {field.name for field in attrs.fields(StartParams)}
    return [(one, convert.camel(one.attribute)) for one in SETTINGS if one.attribute in fields]


def property_of(setting: Setting) -> Property:
    """A setting as the editor's configuration describes it."""
    found: Property = {"type": "string", "default": setting.default}
    match setting.kind:
        case Kind.SIZE | Kind.COUNT:
            found |= {"type": "integer", "minimum": setting.minimum, "maximum": setting.maximum}
        case Kind.SECONDS:
            found |= {"type": "number", "minimum": setting.minimum, "maximum": setting.maximum}
        case Kind.BOOL:
            found["type"] = "boolean"
        case Kind.CHOICE:
            assert setting.choices is not None
            found |= {
                "enum": [str(one) for one in setting.choices],
                "default": str(setting.default),
            }
        case Kind.TEXT if setting.pattern:
            found |= {
                "pattern": f"^(?:{setting.pattern})?$",
                "patternErrorMessage": setting.pattern_hint,
            }
    unit = f", in {setting.unit}" if setting.unit else ""
    help_ = f"{setting.help[:1].upper()}{setting.help[1:]}{unit}."
    found["markdownDescription"] = f"{help_} {setting.doc}"
    return found


def configuration() -> list[Property]:
    """`contributes.configuration`."""

    def block(title: str, properties: dict[str, Property]) -> Property:
        return {
            "title": title,
            "properties": {
                f"{SECTION}.{key}": {"order": order, "scope": "application", **value}
                for order, (key, value) in enumerate(properties.items())
            },
        }

    return [
        block("The machine", {setting.key: property_of(setting) for setting, _ in offered()}),
        block("The editor", OWN),
    ]


def files() -> Iterator[tuple[str, str]]:
    """Path from the root of the repository, and content."""
    text = (ROOT / MANIFEST).read_text(encoding="utf-8")
    # Only this one value is ours; the rest stays as somebody has written it.
    head, mark, rest = text.partition('    "configuration": ')
    assert mark, f"{MANIFEST} has no configuration"
    _, end = json.JSONDecoder().raw_decode(rest)
    written = json.dumps(configuration(), indent=2, ensure_ascii=False).replace("\n", "\n    ")
    yield MANIFEST, head + mark + written + rest[end:]
    rows = [json.dumps({"key": setting.key, "field": field}) for setting, field in offered()]
    yield TABLE, TABLE_HEAD + "".join(f"  {row},\n" for row in rows) + "];\n"
