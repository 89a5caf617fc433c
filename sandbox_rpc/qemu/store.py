"""The templates this user has: whole or not there, and thrown away when they are not as they were.

A machine that starts from a template maps its memory file privately, so its stores stay its own. On
QEMU before 8.2 the file is nevertheless open for writing in QEMU's hands. So what identifies the
file's content without reading it is kept, and compared before each start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout, TemplateFolder
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import TemplateInvalid, TemplateNotFound

FAILURE_HOLDS_S = 3600
"""How long nobody tries again to make a template that could not be made."""
KEPT = 8
"""Templates beyond these, the least used ones, go when another one is made."""
_KEY = re.compile(r"[0-9a-f]{32}")


@frozen
class Mark:
    """What changes with a file's content, or with the file."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Mark:
        """The present mark of a file."""
        stat = path.stat()
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@frozen
class Origin:
    """What a template was made from, for people and for clearing up."""

    image: str
    """Reference of the image when it was made."""
    image_digest: str
    accelerator: str
    memory_mib: int
    cpus: int
    disk_mib: int
    qemu: str
    """Its version."""


@frozen
class Facts:
    """`template.json`."""

    key: str
    origin: Origin
    created_at: str
    memory: Mark
    disk: Mark
    state_sha256: str


@frozen
class Template:
    """One that is there, and as it was made."""

    facts: Facts
    files: TemplateFolder

    @property
    def key(self) -> str:
        """Its name."""
        return self.facts.key

    def state(self) -> bytes:
        """The machine's state.

        Raises:
            TemplateInvalid: it is damaged.
        """
        try:
            state = self.files.state.read_bytes()
        except OSError as error:
            raise _damaged(self.key, f"its state cannot be read: {error.strerror}") from error
        if hashlib.sha256(state).hexdigest() != self.facts.state_sha256:
            raise _damaged(self.key, "its state is not as it was")
        return state

    def take_blank(self, path: Path) -> None:
        """Copy the empty overlay to `path`, 0600.

        Raises:
            TemplateInvalid: it is not there.
            DiskFull: no room.
        """
        if not self.files.blank.is_file():
            raise _damaged(self.key, "its empty disk is missing")
        with files.translated(path):
            shutil.copyfile(self.files.blank, path)
            path.chmod(0o600)

    def touch(self) -> None:
        """Note that it was used now."""
        with suppress(OSError):
            self.files.used.touch(mode=0o600)

    @property
    def used_at(self) -> float:
        """When it was used last, seconds since 1970."""
        for path in (self.files.used, self.files.facts):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    @property
    def size_bytes(self) -> int:
        """Room it takes on disk."""
        return _size(self.files.folder)


def find(layout: Layout, key: str) -> Template | None:
    """The template of a key; None where there is none.

    Raises:
        TemplateInvalid: it is not as it was when it was finished.
    """
    place = layout.template(key)
    try:
        text = place.facts.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if place.folder.exists():
            raise _damaged(key, "it has no description") from None
        return None
    try:
        facts = convert.from_wire(json.loads(text), Facts)
    except ValueError:
        raise _damaged(key, "its description is damaged") from None
    for path, mark in ((place.memory, facts.memory), (place.disk, facts.disk)):
        try:
            now = Mark.of(path)
        except OSError:
            raise _damaged(key, f"its {path.name} is missing") from None
        if now != mark:
            raise _damaged(key, f"its {path.name} has been touched")
    return Template(facts, place)


def publish(
    layout: Layout, key: str, staged: TemplateFolder, origin: Origin, created_at: str
) -> Template:
    """Put a finished template in place: one rename, after all of it has reached the disk.

    Blocks until the memory is written, a second or more.
    """
    for path in (staged.memory, staged.disk, staged.state, staged.blank):
        _flush(path)
    facts = Facts(
        key=key,
        origin=origin,
        created_at=created_at,
        memory=Mark.of(staged.memory),
        disk=Mark.of(staged.disk),
        state_sha256=hashlib.sha256(staged.state.read_bytes()).hexdigest(),
    )
    files.replace(staged.facts, convert.dumps(facts) + "\n")
    _flush(staged.facts)
    _flush(staged.folder)
    final = layout.template(key)
    with files.translated(final.folder):
        discard(layout, key)
        staged.folder.rename(final.folder)
    _flush(layout.templates)
    with suppress(FileNotFoundError):
        layout.template_failure(key).unlink()
    return Template(facts, final)


def discard(layout: Layout, key: str) -> int:
    """Remove a template, whole or damaged; the bytes that frees. Machines that run keep theirs."""
    folder = layout.template(key).folder
    grave = layout.staging / f"removed-{key}-{os.getpid()}-{time.monotonic_ns()}"
    size = _size(folder)
    # Renamed first: half a template must not be taken for one.
    try:
        folder.rename(grave)
    except FileNotFoundError:
        return 0
    shutil.rmtree(grave, ignore_errors=True)
    return size


def every(layout: Layout) -> Iterator[Template]:
    """All that are whole, the last used one first."""
    found = []
    for key in keys(layout):
        with suppress(TemplateInvalid):
            if (template := find(layout, key)) is not None:
                found.append(template)
    yield from sorted(found, key=lambda one: one.used_at, reverse=True)


def keys(layout: Layout) -> list[str]:
    """The keys of all there are, damaged ones too."""
    if not layout.templates.is_dir():
        return []
    return sorted(path.name for path in layout.templates.iterdir() if _KEY.fullmatch(path.name))


def expand(layout: Layout, digits: str) -> str:
    """The key that begins with these digits.

    Raises:
        TemplateNotFound: none does, or several do.
    """
    found = [key for key in keys(layout) if digits and key.startswith(digits)]
    if len(found) != 1:
        raise TemplateNotFound(f"There is no template {digits[:64]}.", key=digits[:64])
    return found[0]


def prune(layout: Layout, is_wanted: Callable[[Template], bool], *, keep: int = KEPT) -> int:
    """Remove damaged templates, those not wanted, and the least used ones beyond `keep`.

    Returns the bytes that frees.
    """
    wanted = [one.key for one in every(layout) if is_wanted(one)][:keep]
    freed = sum(discard(layout, key) for key in keys(layout) if key not in wanted)
    # The locks and notes of keys that nobody will ask for again.
    for path in layout.templates.iterdir():
        if path.suffix == ".failed" and _age(path) > FAILURE_HOLDS_S:
            path.unlink(missing_ok=True)
        elif path.suffix == ".lock" and not layout.template(path.stem).folder.exists():
            with suppress(OSError):
                if (lock := locks.acquire(path)) is not None:
                    path.unlink()
                    os.close(lock)
    return freed


def has_image(layout: Layout, template: Template) -> bool:
    """Whether the image a template was made from is still there: without it nothing can start."""
    return (layout.images / template.facts.origin.image_digest.removeprefix("sha256:")).is_dir()


def note_failure(layout: Layout, key: str, reason: str) -> None:
    """Remember why a template could not be made, so that not every start tries in vain."""
    with suppress(Exception):
        files.replace(layout.template_failure(key), reason)


def failures(layout: Layout) -> list[str]:
    """The keys of templates that could not be made lately."""
    found = sorted(path.stem for path in layout.templates.glob("*.failed"))
    return [key for key in found if failure(layout, key) is not None]


def failure(layout: Layout, key: str) -> str | None:
    """Why it could not be made lately."""
    path = layout.template_failure(key)
    try:
        return path.read_text(errors="replace") if _age(path) < FAILURE_HOLDS_S else None
    except OSError:
        return None


def _age(path: Path) -> float:
    try:
        return abs(time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    size = 0
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                size += path.stat().st_blocks * 512
    return size


def _damaged(key: str, why: str) -> TemplateInvalid:
    return TemplateInvalid(f"The template {key[:12]} is damaged: {why}.", key=key)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
