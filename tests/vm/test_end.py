"""The end of what the other tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.conftest import Running


@pytest.mark.last
def test_stop_all(user_sandbox: Running) -> None:
    """Every sandbox of this user, and nobody else's."""
    host = user_sandbox.host
    done = host.run("stop", "--all")
    assert f"{user_sandbox.name} is stopped." in done.out
    assert host.json("list") == []
    assert not host.room_of(user_sandbox.name).folder.exists()
    assert not Path("/proc", str(user_sandbox.value["pid"])).exists()
    assert host.run("stop", "--all").out == ""
