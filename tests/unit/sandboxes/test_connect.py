"""What SSH to the alias of a stopped sandbox starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox_rpc.host import names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SandboxNotRunning, SshUnreachable
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes import connect
from sandbox_rpc.sandboxes.start import Start

NAME = "sandbox-work"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = Layout(tmp_path / "cache")
    (tmp_path / "work").mkdir()
    assert names.allot(made, str(tmp_path / "work")).name == NAME
    return made


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Start]:
    seen: list[Start] = []

    async def start(layout: Layout, wanted: Start, **more: Any) -> Sandbox:
        seen.append(wanted)
        return Sandbox(NAME, State.RUNNING, wanted.workspace)

    monkeypatch.setattr(connect, "start", start)
    return seen


def test_it_comes_as_it_was_started_last(layout: Layout, started: list[Start]) -> None:
    """With what was asked for, and what the user had set in the editor."""
    names.remember_settings(layout, NAME, {"memory": 512}, {"network": "offline"})
    with pytest.raises(SshUnreachable):  # none of its own, this one
        anyio.run(connect.connect, layout, NAME)
    (wanted,) = started
    assert (wanted.settings, wanted.user_settings) == ({"memory": 512}, {"network": "offline"})
    assert wanted.force


@pytest.mark.parametrize(
    ("overrides", "user"), [({"ssh.autostart": False}, {}), ({}, {"ssh.autostart": False})]
)
def test_not_where_the_user_does_not_want_it(
    layout: Layout, started: list[Start], overrides: dict[str, object], user: dict[str, object]
) -> None:
    names.remember_settings(layout, NAME, overrides, user)
    with pytest.raises(SandboxNotRunning):
        anyio.run(connect.connect, layout, NAME)
    assert started == []
