"""What differs from one run of a session to the next, and what stands for it in an example.

The stand-ins have the type of the real value, so an example still fits the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FROM_CLIENT: Mapping[str, Any] = {"processId": 1000}
FROM_SERVER: Mapping[str, Any] = {
    "active": True,
    "accelerator": "tcg",
    "consoleSocket": "/run/console.sock",
    "createdAt": "2026-01-01T12:00:00.000+00:00",
    "detail": "as this host has it",
    "digest": "sha256:" + "0" * 64,
    "durationMs": 100,
    "hostKey": "ssh-ed25519 AAAA",
    "hostPort": 3000,
    "imageDigest": "sha256:" + "0" * 64,
    "pid": 1000,
    "port": 40022,
    "revision": 1,
    "seconds": 1.5,
    "sizeBytes": 1073741824,
    "startedAt": "2026-01-01T12:00:00.000+00:00",
    "version": "0.1.0",
}
"""Stand-ins by the name of the field, wherever it stands in a message of that side."""

LEFT_OUT = frozenset({"warnings"})
"""Fields that may be absent and that depend on the host."""


def settled(sender: str, value: Any, places: Mapping[str, str]) -> Any:
    """A message with stand-ins, and `${NAME}` for each path in `places` (path → name)."""
    if isinstance(value, dict):
        stand_ins = FROM_CLIENT if sender == "client" else FROM_SERVER
        return {
            key: stand_ins.get(key, settled(sender, part, places))
            for key, part in value.items()
            if sender == "client" or key not in LEFT_OUT
        }
    if isinstance(value, list):
        return [settled(sender, part, places) for part in value]
    if isinstance(value, str):
        # The longest first: one may lie in another.
        for path in sorted(places, key=len, reverse=True):
            value = value.replace(path, "${" + places[path] + "}")
    return value


def placed(value: Any, places: Mapping[str, str]) -> Any:
    """A message of an example with the paths of this run: the inverse, but for stand-ins."""
    if isinstance(value, dict):
        return {key: placed(part, places) for key, part in value.items()}
    if isinstance(value, list):
        return [placed(part, places) for part in value]
    if isinstance(value, str):
        for path, name in places.items():
            value = value.replace("${" + name + "}", path)
    return value
