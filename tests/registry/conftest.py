"""Fixtures: registries that end with the test, and images to put into them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import zstandard
from attrs import frozen

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import fetch, http, manifest, pull, reference
from sandbox_rpc.images.http import Client, Patience
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.images.registry import Registry as Remote
from tests.registry.debian import Debian
from tests.registry.faults import Faulty
from tests.registry.server import Registry
from tests.unit.images import disks

LAYER = "application/vnd.oci.image.layer.v1.tar"
TITLE = "debian-13-nocloud-amd64-custom.qcow2.zst"
PATIENT = Patience(connect_s=20.0, read_s=30.0)
"""For tests that count requests: a busy machine must not seem to be a stalled server."""
HURRIED = Patience(connect_s=20.0, read_s=1.0)
"""For tests in which a server stalls."""


@frozen
class Artifact:
    """An image as the ORAS CLI pushes it."""

    disk: Path
    """The qcow2 file."""
    packed: bytes
    """The same compressed."""

    @property
    def blob(self) -> Blob:
        return Blob(manifest.digest_of(self.packed), len(self.packed), LAYER, TITLE)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A disk with a system, 12 MiB of it random, so that its download has a length."""
    folder = tmp_path_factory.mktemp("artifact")
    noise = random.Random(7).randbytes(12 << 20)
    disk = disks.system(folder, files={**disks.SYSTEM, "noise": noise})
    return Artifact(disk, zstandard.ZstdCompressor(level=1).compress(disk.read_bytes()))


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """Where programs come from that judge ours."""
    return Debian(tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that everybody may use."""
    server = Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.end()


@pytest.fixture
def faulty(registry: Registry) -> Iterator[Faulty]:
    """A server in front of it."""
    server = Faulty(registry.host)
    yield server
    server.end()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A user's cache."""
    layout = Layout(tmp_path / "cache")
    layout.make()
    return layout


def publish(
    host: str, name: str, content: bytes, *, old: bool = False, title: str | None = None,
    size: int | None = None, digest: str | None = None, client: Client | None = None,
) -> str:  # fmt: skip
    """Push a layer as the ORAS CLI does (`old`: as it did for OCI 1.0); the manifest's digest."""
    ref = reference.parse(f"{host}/{name}")
    remote = Remote(ref, push=True, client=client)
    layer = Blob(
        manifest.digest_of(content), len(content), LAYER, TITLE if title is None else title
    )
    empty = b"{}"
    for blob, data in ((layer, content), (Blob(manifest.digest_of(empty), 2), empty)):
        if not remote.has(blob):
            remote.upload(blob, [data])
    kind = "application/vnd.unknown.config.v1+json" if old else "application/vnd.oci.empty.v1+json"
    described = manifest.described(layer)
    described |= {"size": size or len(content), "digest": digest or layer.digest}
    value = {
        "schemaVersion": 2,
        "mediaType": manifest.MANIFEST,
        **({} if old else {"artifactType": "application/vnd.unknown.artifact.v1"}),
        "config": {
            "mediaType": kind, "digest": manifest.digest_of(empty), "size": 2, "data": "e30=",
        },
        "layers": [described],
        "annotations": {manifest.CREATED: "2026-11-23T17:05:29Z"},
    }  # fmt: skip
    top = json.dumps(value).encode()
    remote.put_manifest(top)
    return manifest.digest_of(top)


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are over in hundredths of a second."""
    monkeypatch.setattr(http, "Patience", lambda: PATIENT)
    quick = fetch.Retries(attempts=4, first_pause_s=0.01)
    monkeypatch.setattr(fetch, "Retries", lambda **_: quick)
    monkeypatch.setattr(pull, "Retries", lambda attempts: attrs.evolve(quick, attempts=attempts))


@pytest.fixture
def hurried(brisk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is noticed within a second, however often that takes on a busy machine."""
    monkeypatch.setattr(http, "Patience", lambda: HURRIED)
    quick = fetch.Retries(attempts=30, first_pause_s=0.01, watch_s=1.0)
    monkeypatch.setattr(fetch, "Retries", lambda **_: quick)
