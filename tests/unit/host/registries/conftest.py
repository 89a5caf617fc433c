"""A machine for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.host.registries.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Nothing is configured on it."""
    return Machine(tmp_path)
