"""Held means alive: inherited over fork and exec, gone with the last holder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.host import locks


@contextmanager
def sleeper(*inherited: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has inherited descriptors and knows nothing of locks."""
    with subprocess.Popen(["sleep", "60"], pass_fds=inherited) as child:
        try:
            yield child
        finally:
            child.kill()


def test_taken_once_and_given_back(tmp_path: Path) -> None:
    """One holder at a time; closing the descriptor lets go."""
    path = tmp_path / "lock"
    fd = locks.acquire(path)
    assert fd is not None
    assert locks.acquire(path) is None
    assert locks.is_held(path)
    os.close(fd)
    assert not locks.is_held(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_missing_file_is_held_by_nobody(tmp_path: Path) -> None:
    """Asking does not make the file."""
    path = tmp_path / "lock"
    assert not locks.is_held(path)
    assert locks.holders(path) == []
    assert not path.exists()


def test_child_keeps_it_after_its_parent_has_let_go(tmp_path: Path) -> None:
    """As QEMU keeps vm.lock: over fork and exec, until it is killed."""
    path = tmp_path / "lock"
    fd = locks.acquire(path)
    assert fd is not None
    with sleeper(fd) as child:
        os.close(fd)
        assert locks.is_held(path)
        assert locks.acquire(path) is None
        assert locks.holders(path) == [child.pid]
        child.kill()
        child.wait()
        assert not locks.is_held(path)


def test_not_inherited_unless_passed(tmp_path: Path) -> None:
    """A child that is not meant to have it has not."""
    path = tmp_path / "lock"
    fd = locks.acquire(path)
    assert fd is not None
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            os.close(fd)
            assert not locks.is_held(path)
        finally:
            child.kill()


def test_kill_9_releases(tmp_path: Path) -> None:
    """A holder that cannot clean up leaves nothing held."""
    path = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from sandbox_rpc.host import locks\n"
        "fd = locks.acquire(Path(sys.argv[1])); print('got' if fd else 'no', flush=True)\n"
        "time.sleep(60)"
    )
    argv = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"got\n"
        assert locks.holders(path) == [child.pid]
        child.kill()
        child.wait()
    assert not locks.is_held(path)


def test_who_only_has_the_file_open_is_no_holder(tmp_path: Path) -> None:
    """Holders may be killed; a program that asks whether the lock is held must not be."""
    path = tmp_path / "lock"
    fd = locks.acquire(path)
    assert fd is not None
    other = os.open(path, os.O_RDONLY)
    try:
        with sleeper(other) as bystander:
            assert bystander.pid not in locks.holders(path)
            assert locks.holders(path) == [os.getpid()]
    finally:
        os.close(other)
        os.close(fd)


def test_shared(tmp_path: Path) -> None:
    """Readers share, a writer does not come in between."""
    path = tmp_path / "lock"
    one, two = locks.acquire(path, shared=True), locks.acquire(path, shared=True)
    assert one is not None
    assert two is not None
    assert locks.acquire(path) is None
    os.close(one)
    os.close(two)


def test_no_symbolic_link_is_followed(tmp_path: Path) -> None:
    """A link in a lock's place would make any file of the user's a lock."""
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        locks.acquire(tmp_path / "lock")
    assert not (tmp_path / "victim").exists()


def test_wait_for_it_can_be_cancelled(tmp_path: Path) -> None:
    """held_async gives up when it is told to, and takes the lock once it is free."""
    path = tmp_path / "lock"

    async def main() -> None:
        fd = locks.acquire(path)
        assert fd is not None
        with anyio.move_on_after(0.2) as scope:
            async with locks.held_async(path):
                raise AssertionError("it is held")
        assert scope.cancelled_caught
        os.close(fd)
        with anyio.fail_after(10):
            async with locks.held_async(path):
                assert locks.is_held(path)
        assert not locks.is_held(path)

    anyio.run(main)
