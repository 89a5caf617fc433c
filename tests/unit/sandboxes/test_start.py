"""What a start refuses of a sandbox that runs already."""

from __future__ import annotations

import pytest

from sandbox_rpc.config.choices import Network
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.sandboxes.start import refuse_other_network


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
