"""Walk a folder that a guest may be changing, and find what it left for the host to run.

Nothing is followed: each folder is opened from its parent's descriptor and refused where it is a
link. What counts is the time of the last change of a file's inode, which the host's kernel sets and
no guest can; and for git's configuration what it was before.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from attrs import field, frozen

from sandbox_rpc.workspace import gitconfig
from sandbox_rpc.workspace.executed import FOLDER_NAMES, NOT_ENTERED, VENVS, match

MOST_ENTRIES = 500_000
LIMIT_S = 20.0
MOST_DEPTH = 60
MAX_FILE = 1 << 20
"""Bytes of a file that is compared by content."""
GIT_FILES = ("config", "config.worktree", "info/attributes")
GIT_SIGNS = frozenset(("HEAD", "config", "objects", "refs"))
"""A folder with all of these is a repository to git, whatever it is called."""


@frozen
class Finding:
    """One thing the host would run, or follow."""

    path: str
    """Relative to the workspace."""
    why: str
    """Who runs it, or where it leads."""
    by_itself: bool
    """Whether nobody needs to ask for it."""
    is_link: bool = False


@frozen
class Findings:
    """What a walk has found."""

    found: list[Finding] = field(factory=list)
    complete: bool = True
    """False where the folder is too large to have been looked at in whole."""


Before = Mapping[str, str]
"""What is known from before: of a file its digest, of git's configuration the text, of a folder,
with a slash at the end, the number of its inode."""


def remember(workspace: str) -> dict[str, str]:
    """What can be known before a guest runs, in some milliseconds, of the top of a workspace.

    git's own files by content, and which folders stand where tools obey what is in them.
    """
    known: dict[str, str] = {}
    for name in (*FOLDER_NAMES, ".git/hooks"):
        with suppress(OSError):
            known[f"{name}/"] = str(os.lstat(os.path.join(workspace, name)).st_ino)
    for name in GIT_FILES:
        path = f".git/{name}"
        content = _content(os.path.join(workspace, path))
        if content is not None:
            known[path] = _digest(name, content)
    return known


def scan(workspace: str, since_ns: int, before: Before) -> Findings:
    """What was changed since then; takes about a second for 100 000 files.

    Raises:
        OSError: the folder cannot be read.
    """
    walk = _Walk(since_ns, before)
    top = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = list(walk.folder(top, "", 0, fresh=False))
    finally:
        os.close(top)
    # A hook that is told once is told enough.
    unique = {(one.path, one.why): one for one in found}
    ordered = sorted(unique.values(), key=lambda one: (not one.by_itself, one.is_link, one.path))
    return Findings(ordered, walk.complete)


class _Walk:
    def __init__(self, since_ns: int, before: Before) -> None:
        self._since = since_ns
        self._before = before
        self._left = MOST_ENTRIES
        self._end = time.monotonic() + LIMIT_S
        self.complete = True

    def folder(self, fd: int, path: str, depth: int, *, fresh: bool) -> Iterator[Finding]:
        """The findings below an open folder; `fresh`: it may have had another name before."""
        names: list[tuple[str, os.stat_result]] = []
        for entry in os.scandir(fd):
            self._left -= 1
            if self._left < 0 or time.monotonic() > self._end:
                self.complete = False
                return
            with suppress(OSError):
                names.append((entry.name, entry.stat(follow_symlinks=False)))
        present = {name for name, _ in names}
        if present >= GIT_SIGNS:
            yield from self._repository(fd, path)
            return
        for name, status in names:
            below = f"{path}/{name}" if path else name
            if stat.S_ISDIR(status.st_mode):
                if name in VENVS and self._is_new(fd, f"{name}/pyvenv.cfg"):
                    yield Finding(f"{below}/pyvenv.cfg", "editors run its Python", by_itself=True)
                if name in NOT_ENTERED:
                    continue
                if depth >= MOST_DEPTH:
                    self.complete = False
                    continue
                # A folder that is moved takes files along whose own time stays what it was.
                moved = name in FOLDER_NAMES and self._was_moved(below, status)
                yield from self._enter(fd, name, below, depth, fresh=fresh or moved)
            elif fresh or status.st_ctime_ns > self._since:
                yield from self._file(fd, name, below, status)

    def _enter(
        self, fd: int, name: str, path: str, depth: int, *, fresh: bool
    ) -> Iterator[Finding]:
        try:
            inner = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
            )
        except OSError:
            return
        try:
            yield from self.folder(inner, path, depth + 1, fresh=fresh)
        finally:
            os.close(inner)

    def _file(self, fd: int, name: str, path: str, status: os.stat_result) -> Iterator[Finding]:
        if stat.S_ISLNK(status.st_mode):
            with suppress(OSError):
                target = os.readlink(name, dir_fd=fd)
                if leaves(path, target):
                    yield Finding(path, f"leads to {target}", by_itself=False, is_link=True)
            if name in FOLDER_NAMES:
                yield Finding(path, "a link in the place of a folder that tools obey", True)
        if name == ".git":
            yield Finding(path, "git takes its repository, hooks and all, from there", True)
            return
        if (row := match(path)) is not None:
            yield Finding(path, row.why, row.by_itself)

    def _repository(self, fd: int, path: str) -> Iterator[Finding]:
        """git's own folder: its hooks, its settings, and those of what lies within."""
        for name in GIT_FILES:
            if not self._is_new(fd, name):
                continue
            below = f"{path}/{name}" if path else name
            yield from self._git_file(fd, name, below)
        yield from self._hooks(fd, "hooks", f"{path}/hooks" if path else "hooks")
        for inner in ("modules", "worktrees"):
            yield from self._nested(fd, inner, f"{path}/{inner}" if path else inner, 0)

    def _git_file(self, fd: int, name: str, path: str) -> Iterator[Finding]:
        content = _content(name, fd)
        if content is None:
            yield Finding(path, "git reads it, and it is no plain file", by_itself=True)
            return
        if not name.startswith("config"):
            if self._before.get(path) != _digest(name, content):
                yield Finding(path, "git chooses filters by it", by_itself=True)
            return
        settings = gitconfig.running(content.decode(errors="replace"))
        if settings is None:
            yield Finding(path, "git reads it, and it is not understood here", by_itself=True)
            return
        old = gitconfig.running(self._before.get(path, "")) or {}
        fresh = {key: value for key, value in settings.items() if old.get(key) != value}
        for key, value in sorted(fresh.items()):
            yield Finding(path, f"git obeys {key} = {value[:200]}", by_itself=True)

    def _hooks(self, fd: int, name: str, path: str) -> Iterator[Finding]:
        moved = False
        with suppress(OSError):
            moved = self._was_moved(path, os.stat(name, dir_fd=fd, follow_symlinks=False))
        for hook in _names(fd, name):
            if not hook.endswith(".sample") and (moved or self._is_new(fd, f"{name}/{hook}")):
                yield Finding(f"{path}/{hook}", "git runs it", by_itself=True)

    def _nested(self, fd: int, name: str, path: str, depth: int) -> Iterator[Finding]:
        """Repositories of submodules, at any depth, and what is set for single work trees."""
        for entry in _names(fd, name):
            self._left -= 1
            if self._left < 0 or depth > MOST_DEPTH:
                self.complete = False
                return
            inner, below = f"{name}/{entry}", f"{path}/{entry}"
            with suppress(OSError):
                status = os.stat(inner, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    continue
                for file in GIT_FILES:
                    if self._is_new(fd, f"{inner}/{file}"):
                        yield from self._git_file(fd, f"{inner}/{file}", f"{below}/{file}")
                yield from self._hooks(fd, f"{inner}/hooks", f"{below}/hooks")
                if entry not in ("objects", "refs", "logs", "hooks", "info"):
                    yield from self._nested(fd, inner, below, depth + 1)

    def _was_moved(self, path: str, status: os.stat_result) -> bool:
        """Whether a folder may have had another name; one that only got new entries did not."""
        known = self._before.get(f"{path}/")
        return status.st_ctime_ns > self._since and known != str(status.st_ino)

    def _is_new(self, fd: int, path: str) -> bool:
        try:
            return os.stat(path, dir_fd=fd, follow_symlinks=False).st_ctime_ns > self._since
        except OSError:
            return False


def leaves(path: str, target: str) -> bool:
    """Whether a link at a path of the workspace leads out of it; absolute ones do."""
    if target.startswith("/"):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False


def _names(fd: int, folder: str) -> list[str]:
    try:
        inner = os.open(
            folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
        )
    except OSError:
        return []
    try:
        return sorted(entry.name for entry in os.scandir(inner))
    finally:
        os.close(inner)


def _content(path: str, fd: int | None = None) -> bytes | None:
    """A plain file's beginning; nothing else is opened, a FIFO would wait and a link lead away."""
    try:
        opened = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd
        )
    except OSError:
        return None
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        return file.read(MAX_FILE)


def _digest(name: str, content: bytes) -> str:
    """A configuration as it is, since its settings are compared; of others a digest."""
    if name.startswith("config"):
        return content.decode(errors="replace")
    return hashlib.sha256(content).hexdigest()
