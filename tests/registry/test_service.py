"""The same over JSON-RPC: bytes in `$/progress`, and a cancel that keeps what has come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox_rpc.host.paths import Layout
from tests.contract.service import Service
from tests.registry import faults
from tests.registry.conftest import Artifact, publish
from tests.registry.faults import Faulty
from tests.registry.server import Registry

NAME = "served/image:1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    base = tmp_path / "cache"
    base.mkdir(mode=0o700)
    service = Service(base)
    service.initialize()
    yield service
    service.end()
    assert "Traceback" not in service.errors()


def progress_of(service: Service, request: int) -> list[dict[str, Any]]:
    """Progress until the answer, which stays to be taken."""
    found: list[dict[str, Any]] = []
    while True:
        message = service.take(lambda m: m.get("method") == "$/progress" or m.get("id") == request)
        if message.get("id") == request:
            service.heard.insert(0, message)
            return found
        found.append(message["params"]["value"])


def test_a_pull_says_how_many_bytes_how_fast_and_how_long(
    registry: Registry, faulty: Faulty, service: Service, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.append(faults.slow(0.02))
    asked = service.ask("image/pull", {"ref": f"{faulty.host}/{NAME}", "workDoneToken": "t"})
    told = progress_of(service, asked)
    image = service.reply(asked)["result"]
    assert image["ref"] == f"{faulty.host}/{NAME}"
    assert [one["kind"] for one in told] == ["begin", *["report"] * (len(told) - 2), "end"]
    transfers = [one for one in told if "doneBytes" in one]
    assert len(transfers) >= 4
    total = len(artifact.packed)
    assert {one["totalBytes"] for one in transfers} == {total}
    done = [one["doneBytes"] for one in transfers]
    assert done == sorted(done)
    assert done[-1] == total
    known = [one for one in transfers if one.get("bytesPerSecond")]
    assert known
    for one in known:
        assert "MiB/s" in one["message"]
        assert one["secondsLeft"] >= 0
    assert service.call("image/list") == [image]
    assert service.call("image/check") == [image]


def test_a_cancel_keeps_what_has_come(
    registry: Registry, faulty: Faulty, service: Service, artifact: Artifact, tmp_path: Path
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.append(faults.slow(0.05))
    layout = Layout(tmp_path / "cache")
    params = {"ref": f"{faulty.host}/{NAME}", "workDoneToken": "t"}
    asked = service.ask("image/pull", params)
    while True:
        value = service.take(lambda m: m.get("method") == "$/progress")["params"]["value"]
        if value.get("doneBytes", 0) > 1 << 20:
            break
    service.send("$/cancelRequest", {"id": asked})
    assert service.reply(asked)["error"]["code"] == -32800
    size = layout.partial(artifact.blob.hex).stat().st_size
    assert list(layout.staging.iterdir()) == []
    assert service.call("image/pull", {"ref": f"{faulty.host}/{NAME}"})["sizeBytes"] > 0
    assert faulty.blobs[-1].range == f"bytes={size}-"


def test_errors_are_those_of_the_table(registry: Registry, service: Service) -> None:
    def kind(method: str, params: dict[str, Any]) -> str:
        return str(service.fail(method, params)["data"]["kind"])

    assert kind("image/pull", {"ref": f"{registry.host}/none:1"}) == "imageNotFound"
    assert kind("image/pull", {"ref": "local/x"}) == "downloadFailed"
    assert kind("image/pull", {"ref": "127.0.0.1:9/x:1"}) == "downloadFailed"
    assert kind("image/import", {"path": "/nothing/here"}) == "imageNotFound"
    assert kind("image/push", {"ref": "local/x", "to": f"{registry.host}/x:1"}) == "imageNotFound"
    assert kind("image/export", {"ref": "local/x", "path": "/nothing/x"}) == "imageNotFound"
    assert service.call("image/prune", {}) == {"digests": [], "freedBytes": 0}


def test_a_pull_wants_the_signature_that_the_users_file_asks_for(
    registry: Registry, artifact: Artifact, tmp_path: Path
) -> None:
    publish(registry.host, "unsigned/image:1", artifact.packed)
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "key.pub").write_bytes(
        public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (tmp_path / "config" / "sandbox").mkdir(parents=True)
    own = tmp_path / "config" / "sandbox" / "config.toml"
    own.write_text(f"[pull]\nkey = '{tmp_path}/key.pub'\n")
    (tmp_path / "cache").mkdir(mode=0o700)
    service = Service(tmp_path / "cache", env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    try:
        service.initialize()
        ref = f"{registry.host}/unsigned/image:1"
        error = service.fail("image/pull", {"ref": ref})
        assert (error["code"], error["data"]["kind"]) == (1209, "imageUnsigned")
        own.write_text("")
        assert service.call("image/pull", {"ref": ref})["ref"] == ref
    finally:
        service.end()
