"""Which sandbox a word on the command line means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import NameInvalid, SandboxNotFound, WorkspaceRefused
from sandbox_rpc.sandboxes.find import GUEST_WORKSPACE, Found, find


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A place with a project `app`, where the caller stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    layout = Layout(tmp_path / "cache")
    names.allot(layout, str(tmp_path / "app"))
    return layout


def test_by_name_short_name_and_folder(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole name, without its prefix, a path, and the folder one is in."""
    record = names.read(layout, "sandbox-app")
    for word in ("sandbox-app", "app", "./app", str(tmp_path / "app"), "app/"):
        assert find(layout, word) == Found(record, GUEST_WORKSPACE)
    monkeypatch.chdir("app")
    for word in (".", "../app"):
        assert find(layout, word) == Found(record, GUEST_WORKSPACE)
    assert find(layout, None) == Found(record, GUEST_WORKSPACE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find(layout, "app").record == record


def test_name_goes_before_a_folder_of_that_name(layout: Layout, tmp_path: Path) -> None:
    """What is remembered wins over what happens to lie here."""
    (tmp_path / "sandbox-app").mkdir()
    assert find(layout, "sandbox-app").record.workspace == str(tmp_path / "app")


def test_folder_in_a_running_workspace(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means that sandbox, and where in it."""
    (tmp_path / "app" / "src" / "a b").mkdir(parents=True)
    with pytest.raises(SandboxNotFound):
        find(layout, "app/src")
    fd = locks.acquire(layout.home("sandbox-app").vm_lock)
    assert fd is not None
    found = find(layout, "app/src/a b")
    assert found.guest_folder == f"{GUEST_WORKSPACE}/src/a b"
    monkeypatch.chdir("app/src")
    assert find(layout, None).guest_folder == f"{GUEST_WORKSPACE}/src"
    os.close(fd)


def test_nobody(layout: Layout, tmp_path: Path) -> None:
    """Each kind of nothing says what it is."""
    with pytest.raises(SandboxNotFound, match="no sandbox nobody"):
        find(layout, "nobody")
    with pytest.raises(SandboxNotFound, match="has no sandbox"):
        find(layout, None)
    with pytest.raises(SandboxNotFound, match="has no sandbox"):
        find(layout, "..")
    with pytest.raises(WorkspaceRefused):
        find(layout, "./nobody")
    for word in ("", "x" * 300, "a..b", "%", "lock"):
        with pytest.raises(NameInvalid):
            find(layout, word)


def test_folder_whose_name_no_sandbox_can_have(layout: Layout, tmp_path: Path) -> None:
    """A word that is no name may still be a folder."""
    (tmp_path / "a b").mkdir()
    names.allot(layout, str(tmp_path / "a b"))
    assert find(layout, "a b").record.name == "sandbox-a_b"
