"""Which folders may be shared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_rpc.host import locks, names, paths
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import WorkspaceRefused
from sandbox_rpc.sandboxes import workspace


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A user with a home folder, state and settings of its own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return Layout(home / ".cache" / "sandbox")


def refusal(layout: Layout, path: str | Path, *, force: bool = False) -> WorkspaceRefused:
    with pytest.raises(WorkspaceRefused) as caught:
        workspace.admit(layout, str(path), force=force)
    return caught.value


def test_ordinary_folder(layout: Layout, tmp_path: Path) -> None:
    """As it is, with nothing to hide."""
    (tmp_path / "a").mkdir()
    assert workspace.admit(layout, str(tmp_path / "a")) == workspace.Workspace(str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["a,b", "a\nb", "it's", '"q"', "$(x) `y` %h", " ", "é", "\udcff"])
def test_odd_names(layout: Layout, tmp_path: Path, name: str) -> None:
    """Whatever the file system takes."""
    (tmp_path / name).mkdir()
    assert workspace.admit(layout, str(tmp_path / name)).path == str(tmp_path / name)


def test_link_means_what_it_points_to(layout: Layout, tmp_path: Path) -> None:
    """So that a folder has one name however it is reached; a dangling link is missing."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert workspace.admit(layout, str(tmp_path / "link")).path == str(tmp_path / "real")
    assert "no folder" in refusal(layout, tmp_path / "dangling").message
    assert refusal(layout, tmp_path / "loop").hint


def test_missing_file_nothing_and_nul(layout: Layout, tmp_path: Path) -> None:
    """Each says what is wrong, and what to do."""
    (tmp_path / "file").touch()
    cases = {
        str(tmp_path / "none"): "There is no folder",
        str(tmp_path / "file"): "is not a folder",
        str(tmp_path / "file" / "x"): "Not a directory",
        "": "No folder is named",
        "a\0b": "is not a path",
    }
    for path, words in cases.items():
        error = refusal(layout, path)
        assert words in error.message
        assert error.hint


def test_too_long(layout: Layout) -> None:
    """More than the system takes is refused with its length, not with 5000 characters."""
    error = refusal(layout, "/" + "x" * 5000)
    assert "too long for this system (5001 bytes)" in error.message
    assert len(refusal(layout, "/" + "/".join(["x" * 100] * 50)).message) < 300


def test_4000_characters(layout: Layout, tmp_path: Path) -> None:
    """The system takes them, so we do; only by chdir can such a path be made."""
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        while len(path := str(Path.cwd())) < 3900:
            name = "d" * min(200, 3999 - len(path))
            Path(name).mkdir()
            os.chdir(name)
        assert workspace.admit(layout, path).path == path
    finally:
        os.chdir(here)
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_unreadable(reachable: Path) -> None:
    """For an ordinary user: a folder without its right, and one below such a folder."""
    (reachable / "closed" / "inner").mkdir(parents=True)
    (reachable / "closed").chmod(0)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sandbox_rpc.host.paths import Layout\n"
        "from sandbox_rpc.protocol.errors import WorkspaceRefused\n"
        "from sandbox_rpc.sandboxes import workspace\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "os.environ['HOME'] = '/nowhere'\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        workspace.admit(Layout(Path('/nowhere/cache')), path)\n"
        "    except WorkspaceRefused as error:\n"
        "        print(error.message, '|', error.hint)\n"
    )
    paths = [str(reachable / "closed"), str(reachable / "closed" / "inner")]
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
        )
    finally:
        (reachable / "closed").chmod(0o700)
    assert done.stdout.splitlines() == [
        f"{paths[0]} cannot be read by this user. | Check its permissions.",
        f"{paths[1]} cannot be opened: Permission denied. | "
        "Check the permissions of the folders above it.",
    ]


def test_root_and_home(layout: Layout) -> None:
    """Only with --force, and then without our state."""
    home = Path(os.environ["HOME"])
    state, settings = str(layout.base), str(home / ".config" / "sandbox")
    for path in ("/", home):
        error = refusal(layout, path)
        assert "--force" in str(error.hint)
        assert not layout.base.exists()
    for path in ("/", home):
        admitted = workspace.admit(layout, str(path), force=True)
        assert admitted.masks == (state, settings)
    # What does not exist cannot be masked.
    assert Path(state).is_dir()
    assert Path(settings).is_dir()


def test_home_that_is_a_link(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the home folder by whatever name."""
    (tmp_path / "alias").symlink_to(os.environ["HOME"])
    monkeypatch.setenv("HOME", str(tmp_path / "alias"))
    elsewhere = Layout(tmp_path / "state")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "is the home folder" in refusal(elsewhere, tmp_path / "home").message


def test_no_home_at_all(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user in no table, as in containers, can share a folder all the same."""
    monkeypatch.setattr(paths, "home", lambda: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "a").mkdir()
    assert workspace.admit(layout, str(tmp_path / "a")).masks == ()


def test_our_own_state(layout: Layout) -> None:
    """Inside it never; what contains it only by force, with the state masked."""
    home = Path(os.environ["HOME"])
    layout.make()
    settings = home / ".config" / "sandbox"
    settings.mkdir(parents=True)
    link = home / "innocent"
    link.symlink_to(layout.base)
    for path in (layout.base, layout.rooms, settings, link, link / "names"):
        for force in (False, True):
            assert "own state" in refusal(layout, path, force=force).message
    for path, mask in ((home / ".cache", layout.base), (home / ".config", settings)):
        assert "contains" in refusal(layout, path).message
        assert workspace.admit(layout, str(path), force=True).masks == (str(mask),)
    # A name that only begins alike is another folder.
    beside = layout.base.with_name("sandbox-project")
    beside.mkdir()
    assert workspace.admit(layout, str(beside)).masks == ()


def test_enclosing(layout: Layout, tmp_path: Path) -> None:
    """A folder in a running workspace means that sandbox, the innermost; a stopped one does not."""
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    outer = names.allot(layout, str(tmp_path / "a"))
    middle = names.allot(layout, str(tmp_path / "a" / "b"))
    assert workspace.enclosing(layout, str(inner)) is None
    held = [locks.acquire(layout.home(outer.name).vm_lock)]
    assert workspace.enclosing(layout, str(inner)) == outer
    assert workspace.enclosing(layout, str(tmp_path / "a")) == outer
    assert workspace.enclosing(layout, str(tmp_path)) is None
    held.append(locks.acquire(layout.home(middle.name).supervisor_lock))
    assert workspace.enclosing(layout, str(inner)) == middle
    for fd in held:
        assert fd is not None
        os.close(fd)
