"""One world for all tests of this folder; a guest for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.network.lab import Lab, World, lab


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The three namespaces."""
    made = World()
    yield made
    made.stop()


@pytest.fixture
def guest(world: World, tmp_path: Path) -> Iterator[Lab]:
    """A guest whose cable ends in QEMU; the test starts the network process."""
    with lab(world, tmp_path) as made:
        yield made
