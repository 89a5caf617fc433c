"""Copies into a folder that somebody else changes meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_rpc.host.carry import carry, parts_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree with everything in it."""
    folder = tmp_path / "source"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "node").write_bytes(b"x" * 3_000_000)
    (folder / "bin" / "node").chmod(0o4775)
    (folder / "bin" / "link").symlink_to("node")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def test_a_tree(source: Path, kept: Path) -> None:
    """Content, links, executable bits; no setuid bit, nothing that is not a file."""
    assert carry(source, kept, ".server/bin/abc")
    copied = kept / ".server" / "bin" / "abc"
    assert (copied / "bin" / "node").read_bytes() == b"x" * 3_000_000
    assert stat.S_IMODE((copied / "bin" / "node").stat().st_mode) == 0o755
    assert (copied / "bin" / "link").readlink() == Path("node")
    assert sorted(path.name for path in copied.iterdir()) == ["bin", "empty"]
    assert [path.name for path in copied.parent.iterdir()] == ["abc"]


def test_a_file(source: Path, kept: Path) -> None:
    """Into a folder that is there already."""
    (kept / "a").mkdir()
    assert carry(source / "bin" / "node", kept, "a/node")
    assert (kept / "a" / "node").stat().st_size == 3_000_000


def test_what_is_there_stays(source: Path, kept: Path) -> None:
    """Whatever it is."""
    (kept / "a").mkdir()
    (kept / "a" / "b").symlink_to("nowhere")
    assert not carry(source, kept, "a/b")
    assert (kept / "a" / "b").readlink() == Path("nowhere")


@pytest.mark.parametrize("name", ["..", ".", "", "a b", "a\nb", "x" * 256])
def test_paths_that_lead_out(name: str) -> None:
    """Or could."""
    for target in (name, f"a/{name}", f"{name}/a"):
        with pytest.raises(ValueError, match=r".*"):
            parts_of(target)


def test_a_planted_link_is_not_followed(source: Path, kept: Path, tmp_path: Path) -> None:
    """Not above the target, and not while it is copied."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (kept / "a").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        carry(source, kept, "a/b")
    (kept / "a").unlink()

    def plant(_: int) -> None:
        # The guest moves the folder that is being filled away and puts a link there.
        (fresh,) = (kept / "a").iterdir()
        inside = fresh / "bin"
        if not inside.is_symlink():
            inside.rename(kept / "elsewhere")
            inside.symlink_to(outside)

    carry(source, kept, "a/b", plant)
    assert list(outside.iterdir()) == []


def test_a_copy_that_breaks_off_leaves_nothing(source: Path, kept: Path) -> None:
    """Neither half a tree nor a temporary name."""

    def stop(count: int) -> None:
        if count > 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(source, kept, "a/b", stop)
    assert list((kept / "a").iterdir()) == []


def test_all_of_it_is_the_folders_owners(source: Path, kept: Path) -> None:
    """Also where root copies for another user."""
    if os.geteuid() == 0:
        os.chown(kept, 12345, 23456)
    wanted = kept.stat()
    assert carry(source, kept, "a/b")
    for path in (kept / "a").rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (wanted.st_uid, wanted.st_gid)
