"""Name ↔ folder, for good."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.config.choices import Accelerator
from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import (
    NameInvalid,
    PermissionDenied,
    SandboxBusy,
    SandboxNotFound,
    StateNewer,
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "cache")


def test_allotted_found_remembered(layout: Layout) -> None:
    """Both ways, and the second time the same."""
    record = names.allot(layout, "/projects/app")
    assert record == names.Record("sandbox-app", "/projects/app")
    assert names.allot(layout, "/projects/app") == record
    assert names.find(layout, "/projects/app") == "sandbox-app"
    assert names.find(layout, "/projects/other") is None
    assert names.read(layout, "sandbox-app") == record
    names.remember_port(layout, "sandbox-app", 2222)
    assert names.allot(layout, "/projects/app").last_port == 2222
    assert [one.name for one in names.every(layout)] == ["sandbox-app"]


def test_two_folders_of_one_basename(layout: Layout) -> None:
    """The second gets a suffix, and neither ever comes to mean the other."""
    first, second, third = (names.allot(layout, f"/{top}/app").name for top in "abc")
    assert (first, second, third) == ("sandbox-app", "sandbox-app-2", "sandbox-app-3")
    names.forget(layout, second)
    assert names.find(layout, "/b/app") is None
    assert names.read(layout, first).workspace == "/a/app"
    assert names.allot(layout, "/d/app").name == "sandbox-app-2"
    with pytest.raises(SandboxNotFound):
        names.forget(layout, "sandbox-nobody")


def test_forgetting_takes_what_was_kept_and_nothing_behind_a_link(
    layout: Layout, tmp_path: Path
) -> None:
    """The guest made it: links out, folders that are shut."""
    name = names.allot(layout, "/projects/app").name
    kept = layout.home(name).persist
    (kept / "shut" / "below").mkdir(parents=True)
    (kept / "shut" / "below" / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "file").touch()
    (kept / "link").symlink_to(outside)
    (kept / "shut" / "below").chmod(0)
    (kept / "shut").chmod(0)
    names.forget(layout, name)
    assert not layout.home(name).folder.exists()
    assert (outside / "file").exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o750


def test_wanted_name(layout: Layout) -> None:
    """One's own choice, unless the name or the folder is taken."""
    assert names.allot(layout, "/a", "mine").name == "mine"
    assert names.allot(layout, "/a", "mine").name == "mine"
    with pytest.raises(SandboxBusy, match="mine is the sandbox of /a"):
        names.allot(layout, "/b", "mine")
    with pytest.raises(SandboxBusy, match="workspace of mine"):
        names.allot(layout, "/a", "other")


BAD = [
    "", ".", "..", "a..b", "../x", "a/b", "/", "-x", ".x", "_x", "a b", "a\nb", "ä", "x" * 65,
    "x" * 300, "lock", "by-path", "a\0b", "%h", "*", "x\n",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_not_a_name(layout: Layout, name: str) -> None:
    """Refused before anything is written, known folder or not; long ones are shown cut."""
    with pytest.raises(NameInvalid) as caught:
        names.allot(layout, "/a", name)
    assert len(caught.value.message) < 200
    assert not layout.base.exists()
    names.allot(layout, "/a")
    with pytest.raises(NameInvalid):
        names.allot(layout, "/a", name)
    with pytest.raises(NameInvalid):
        names.read(layout, name)


@pytest.mark.parametrize(
    "folder",
    [
        "/", "/x/...", "/x/a..b", "/x/....", "/x/проект", "/x/-", "/x/--rm", "/x/a b\n'\",",
        "/x/" + "y" * 255, "/x/" + "ü" * 120, "/x/\udcff\udcfe", "/x/lock", "/x/.hidden", "/x/%",
    ],
)  # fmt: skip
def test_every_folder_suggests_a_name(layout: Layout, folder: str) -> None:
    """Whatever a folder is called, its name is one, and the folder is found by it."""
    record = names.allot(layout, folder)
    assert names.check(record.name) == record.name
    assert record.name.startswith("sandbox-")
    assert names.read(layout, record.name).workspace == folder
    assert names.find(layout, folder) == record.name


def test_long_basenames_that_begin_alike_differ() -> None:
    """What is cut off is still told apart."""
    one, two = (names.from_path("/x/" + "y" * 200 + end) for end in "ab")
    assert one != two


def test_running_is_not_forgotten(layout: Layout) -> None:
    """Neither a machine nor a supervisor may lose its name."""
    record = names.allot(layout, "/a")
    home = layout.home(record.name)
    for path in (home.vm_lock, home.supervisor_lock):
        fd = locks.acquire(path)
        assert fd is not None
        with pytest.raises(SandboxBusy):
            names.forget(layout, record.name)
        os.close(fd)
    layout.room(record.name).folder.mkdir()
    names.forget(layout, record.name)
    assert not home.folder.exists()
    assert not layout.room(record.name).folder.exists()
    assert not layout.name_of_path("/a").exists()


def test_damaged_and_newer_records(layout: Layout) -> None:
    """A damaged record is none, and its name is not given to another; a newer one is an error."""
    record = names.allot(layout, "/a/app")
    path = layout.home(record.name).record
    for damage in (b"", b"{", b"[]", b"null", b'{"schema": 1}', b'{"schema": "9"}', b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(SandboxNotFound):
            names.read(layout, record.name)
        assert names.every(layout) == []
    assert names.allot(layout, "/b/app").name == "sandbox-app-2"
    path.write_text(json.dumps({"schema": 2, "name": record.name}))
    with pytest.raises(StateNewer):
        names.read(layout, record.name)
    layout.name_of_path("/b/app").write_bytes(b"../../\xff")
    assert names.find(layout, "/b/app") is None


def test_eight_processes_at_once_get_eight_names(layout: Layout) -> None:
    """And eight starts of one folder get one."""
    layout.make()
    program = (
        "import sys; from pathlib import Path\n"
        "from sandbox_rpc.host import names; from sandbox_rpc.host.paths import Layout\n"
        "layout = Layout(Path(sys.argv[1])); print('up', flush=True); sys.stdin.readline()\n"
        "print(names.allot(layout, sys.argv[2]).name, names.allot(layout, '/one').name)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(layout.base), f"/{number}/app"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(8)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=30)[0].split() for child in children]
    assert len({own for own, _ in answers}) == 8
    assert {shared for _, shared in answers} == {"sandbox-one"}
    for number, (own, _) in enumerate(answers):
        assert names.read(layout, own).workspace == f"/{number}/app"


@pytest.mark.parametrize("base", ["file", "file/cache", "loop"])
def test_cache_base_that_cannot_be_a_folder(tmp_path: Path, base: str) -> None:
    """An error for people, who have set SANDBOX_CACHE_BASE to something else."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PermissionDenied) as caught:
        names.allot(Layout(tmp_path / base), "/a")
    assert "SANDBOX_CACHE_BASE" in str(caught.value.hint)


def test_settings_are_remembered_with_their_types(layout: Layout) -> None:
    """A sandbox that was started read-only must not come back writable by its alias."""
    record = names.allot(layout, "/home/me/app")
    given: dict[str, object] = {
        "workspace.read_only": True,
        "memory": 1024,
        "accelerator": Accelerator.TCG,
    }
    names.remember_settings(layout, record.name, given, {"network": "offline"})
    noted = names.read(layout, record.name)
    assert noted.overrides == {
        "workspace.read_only": True,
        "memory": 1024,
        "accelerator": "tcg",
    }
    assert noted.user_settings == {"network": "offline"}
    names.remember_settings(layout, record.name, {}, {})
    noted = names.read(layout, record.name)
    assert (noted.overrides, noted.user_settings) == ({}, {})
