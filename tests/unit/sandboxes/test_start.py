"""What a start asks its supervisor for, and what it refuses of a sandbox that runs already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox_rpc.config.choices import Network
from sandbox_rpc.host import names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes import start as module
from sandbox_rpc.sandboxes.start import Start, refuse_other_network, start
from sandbox_rpc.supervisor.request import StartRequest


def running(network: str | None) -> Sandbox:
    return Sandbox("sandbox-x", State.RUNNING, "/w", network=network)


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        ("open", {}),
        ("open", {"network": "open"}),
        ("proxy", {"network": Network.PROXY}),
        ("proxy", {"memory": 512}),
        (None, {"network": "offline"}),
    ],
)
def test_what_fits(network: str | None, asked: dict[str, object]) -> None:
    refuse_other_network(running(network), asked)


@pytest.mark.parametrize(
    ("network", "asked"), [("open", "proxy"), ("open", Network.OFFLINE), ("offline", "open")]
)
def test_another_network(network: str, asked: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        refuse_other_network(running(network), {"network": asked})
    assert f"network = {network}, not {asked}" in caught.value.message
    assert caught.value.hint == "Stop it first: sandbox stop sandbox-x"


def test_the_folder_tightens_the_settings_of_the_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are not what this start was asked for, and are remembered apart from that."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SANDBOX_CONTAINER", raising=False)
    folder, layout = tmp_path / "work", Layout(tmp_path / "cache")
    folder.mkdir()
    (folder / "sandbox.toml").write_text("network = 'offline'\nmemory = '1G'\n")
    requests: list[StartRequest] = []

    async def request_start(
        layout: Layout, record: Record, request: StartRequest, **more: Any
    ) -> Sandbox:
        requests.append(request)
        return Sandbox(record.name, State.RUNNING, record.workspace)

    monkeypatch.setattr(module, "request_start", request_start)
    user = {"network": "open", "memory": 4096}
    wanted = Start(str(folder), settings={"memory": 8192}, user_settings=user)
    sandbox = anyio.run(start, layout, wanted)
    (request,) = requests
    assert (request.settings.network, request.settings.memory_mib) == ("offline", 8192)
    record = names.read(layout, sandbox.name)
    assert (record.overrides, record.user_settings) == ({"memory": 8192}, user)
