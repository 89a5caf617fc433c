"""The ORAS CLI as the judge: what it pushes we pull, what we push and export it pulls."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
import zstandard

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import bring, manifest, pack, pull, store
from tests.registry.conftest import TITLE, Artifact
from tests.registry.debian import Debian
from tests.registry.server import Registry
from tests.unit.images import disks

Oras = Callable[..., str]


@pytest.fixture
def oras(debian: Debian, tmp_path: Path) -> Oras:
    """Runs it in a folder; what it printed."""
    program = debian.program("oras")

    def run(*words: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            [str(program), *words], cwd=cwd, capture_output=True, text=True, timeout=60,
            check=False, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def imported(layout: Layout, artifact: Artifact) -> store.StoredImage:
    disk = str(artifact.disk)
    return anyio.run(bring.bring, layout, disk, "local/mine", None, lambda _: None)


@pytest.mark.parametrize("form", ["v1.0", "v1.1"])
def test_what_it_pushes_we_pull(
    oras: Oras, registry: Registry, layout: Layout, artifact: Artifact, tmp_path: Path, form: str
) -> None:
    (tmp_path / TITLE).write_bytes(artifact.packed)
    ref = f"{registry.host}/oras/image:{form}"
    oras("push", "--plain-http", "--no-tty", "--image-spec", form, ref, TITLE)
    image = anyio.run(partial(pull.pull, layout, ref, lambda _: None, chosen=True))
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert image.kernel.read_bytes() == disks.KERNEL
    top = oras("manifest", "fetch", "--plain-http", ref).encode()
    assert image.manifest == manifest.digest_of(top)


def check_files(folder: Path, image: store.StoredImage) -> None:
    """What lies in a folder is the image."""
    packed = (folder / "disk.qcow2.zst").read_bytes()
    unpacked = zstandard.ZstdDecompressor().decompress(packed)
    assert unpacked == image.disk.read_bytes()
    for name in (store.KERNEL, store.INITRD):
        assert (folder / name).read_bytes() == (image.folder / name).read_bytes()


def test_what_we_push_it_pulls(
    oras: Oras, registry: Registry, layout: Layout, artifact: Artifact, tmp_path: Path
) -> None:
    image = imported(layout, artifact)
    ref = f"{registry.host}/ours/image:1"
    pushed = anyio.run(pack.push, layout, "local/mine", ref, lambda _: None)
    top = oras("manifest", "fetch", "--plain-http", ref)
    assert manifest.digest_of(top.encode()) == pushed["manifest"]
    assert json.loads(top)["artifactType"] == manifest.ARTIFACT
    (tmp_path / "out").mkdir()
    oras("pull", "--plain-http", "--no-tty", ref, cwd=tmp_path / "out")
    check_files(tmp_path / "out", image)


@pytest.mark.parametrize("name", ["layout", "layout.tar"])
def test_what_we_export_it_reads(
    oras: Oras, registry: Registry, layout: Layout, artifact: Artifact, tmp_path: Path, name: str
) -> None:
    image = imported(layout, artifact)
    anyio.run(pack.export, layout, "local/mine", str(tmp_path / name), lambda _: None)
    (tmp_path / "out").mkdir()
    # A layout's names are its tags.
    source = f"{tmp_path / name}:latest"
    oras("pull", "--oci-layout", "--no-tty", source, cwd=tmp_path / "out")
    check_files(tmp_path / "out", image)


def test_its_layouts_are_taken(
    oras: Oras, registry: Registry, layout: Layout, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / TITLE).write_bytes(artifact.packed)
    ref = f"{registry.host}/oras/copied:1"
    oras("push", "--plain-http", "--no-tty", ref, TITLE)
    oras("copy", "--from-plain-http", "--no-tty", "--to-oci-layout", ref, f"{tmp_path / 'lay'}:one")
    image = anyio.run(bring.bring, layout, str(tmp_path / "lay"), "local/one", None, lambda _: None)
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
