"""A cache of images, empty, and staged images to publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import store

FACTS = {
    "arch": "x86_64",
    "createdAt": "2026-01-02T03:04:05+00:00",
    "kernelVersion": "6.12.0-test",
    "kernelCommandLine": "root=/dev/vda rw",
    "agent": True,
    "agentVersion": 1,
    "sshPort": 22,
    "diskMib": 8192,
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A user's cache with all its folders."""
    layout = Layout(tmp_path / "cache")
    layout.make()
    return layout


@pytest.fixture
def stage(layout: Layout) -> Callable[[str], tuple[Path, str]]:
    """Makes a staging folder with an image whose disk holds a text; the folder and its digest."""

    def make(content: str) -> tuple[Path, str]:
        folder = layout.staging / f"staged-{content}"
        folder.mkdir()
        (folder / store.DISK).write_text(content)
        (folder / store.KERNEL).write_text("kernel")
        (folder / store.INITRD).write_text("initrd")
        return folder, store.describe(folder, FACTS)

    return make


@pytest.fixture
def publish(
    layout: Layout, stage: Callable[[str], tuple[Path, str]]
) -> Callable[[str, str], store.StoredImage]:
    """Publishes an image under a name: `publish(ref, content)`."""
    return lambda ref, content: store.publish(layout, ref, *stage(content))
