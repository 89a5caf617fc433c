"""What `doctor` says of the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.network import libslirp
from sandbox_rpc.protocol.types import Check, Verdict
from sandbox_rpc.sandboxes import doctor


def network(layout: Layout) -> Check:
    (found,) = [one for one in doctor.examine(layout).checks if one.id == "network"]
    return found


def test_the_network_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.make()
    version = libslirp.probe().version
    assert network(layout) == Check(
        "network", Verdict.OK, f"libslirp {version}: the guest's network is a process of its own"
    )
    absent = libslirp.probe("libslirp.so.none")
    monkeypatch.setattr(libslirp, "probe", lambda: absent)
    found = network(layout)
    assert found.status is Verdict.WARNING, "sandboxes start all the same"
    assert "libslirp cannot be loaded" in found.message
    assert "reaches this host's loopback" in found.message
    assert found.hint is not None
    assert "Install libslirp" in found.hint
