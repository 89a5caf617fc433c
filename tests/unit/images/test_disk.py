"""Overlays over an image."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host import process
from sandbox_rpc.images import disk
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import DiskFull, ImageInvalid, PermissionDenied, ToolMissing

Publish = Callable[[str, str], StoredImage]


class Tool:
    """qemu-img, which only says what it was asked."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.argv: list[str] = []

    async def __call__(self, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        self.argv = argv
        if self.error:
            raise subprocess.CalledProcessError(1, argv, b"", self.error.encode())
        return subprocess.CompletedProcess(argv, 0, b"", b"")


def test_an_overlay_names_its_image_by_absolute_path_and_format(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = publish("local/debian-13", "one")
    tool = Tool()
    monkeypatch.setattr(process, "run", tool)
    path = tmp_path / "overlay.qcow2"
    anyio.run(disk.create_overlay, path, image, 20480)
    assert tool.argv[-6:] == ["-F", "qcow2", "-b", str(image.disk), str(path), "20480M"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_overlay_is_never_smaller_than_the_image(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = Tool()
    monkeypatch.setattr(process, "run", tool)
    image = publish("local/debian-13", "one")
    anyio.run(disk.create_overlay, tmp_path / "overlay.qcow2", image, 100)
    assert tool.argv[-1] == f"{image.disk_mib}M"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("qemu-img: x: Could not create: No space left on device", DiskFull),
        ("qemu-img: x: Could not open backing file: Permission denied", PermissionDenied),
        ("qemu-img: x: Image is not in qcow2 format", ImageInvalid),
    ],
)
def test_what_qemu_img_says_becomes_an_error_for_people(
    publish: Publish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    kind: type[Exception],
) -> None:
    monkeypatch.setattr(process, "run", Tool(said))
    with pytest.raises(kind):
        anyio.run(disk.create_overlay, tmp_path / "o", publish("local/debian-13", "one"), 100)


def test_without_qemu_img(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolMissing, match="qemu-img"):
        anyio.run(disk.create_overlay, tmp_path / "o", publish("local/debian-13", "one"), 100)
