"""Templates on disk: whole or not there, whoever is killed, and gone when anybody touched them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from sandbox_rpc.host import locks
from sandbox_rpc.host.paths import Layout, TemplateFolder
from sandbox_rpc.protocol.errors import TemplateInvalid, TemplateNotFound
from sandbox_rpc.qemu import store
from sandbox_rpc.qemu.store import Origin

KEY = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
ORIGIN = Origin("local/debian-13", f"sha256:{'1' * 64}", "tcg", 64, 2, 8192, "7.2.22")
MADE = "2026-01-02T03:04:05.678+00:00"
FILES = {"memory": b"M" * 8192, "disk.qcow2": b"disk", "state": b"state", "blank.qcow2": b"blank"}


def stage(layout: Layout) -> TemplateFolder:
    folder = layout.staging / f"made-{time.monotonic_ns()}"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return TemplateFolder(folder)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "cache")
    made.make()
    return made


@pytest.fixture
def publish(layout: Layout) -> Callable[[str], store.Template]:
    def do(key: str) -> store.Template:
        return store.publish(layout, key, stage(layout), ORIGIN, MADE)

    return do


def test_a_published_template_is_found_as_it_was(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    assert store.find(layout, KEY) is None
    made = publish(KEY)
    assert list(layout.staging.iterdir()) == []
    found = store.find(layout, KEY)
    assert found == made
    assert found is not None
    assert found.facts.origin == ORIGIN
    assert found.state() == b"state"
    target = layout.base / "overlay"
    found.take_blank(target)
    assert target.read_bytes() == b"blank"
    assert target.stat().st_mode & 0o777 == 0o600
    assert layout.template(KEY).folder.stat().st_mode & 0o077 == 0 or os.geteuid() == 0


def touch(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")


def back_in_time(path: Path) -> None:
    stat = path.stat()
    in_place(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def hole(path: Path) -> None:
    subprocess.run(["fallocate", "--punch-hole", "-o", "0", "-l", "4096", str(path)], check=True)


@pytest.mark.parametrize("name", ["memory", "disk.qcow2"])
@pytest.mark.parametrize("deed", [touch, in_place, back_in_time, replaced, hole, Path.unlink])
def test_a_file_that_was_touched_is_noticed(
    layout: Layout,
    publish: Callable[[str], store.Template],
    name: str,
    deed: Callable[[Path], object],
) -> None:
    publish(KEY)
    time.sleep(0.02)  # the kernel's clock for files has ticks
    deed(layout.template(KEY).folder / name)
    with pytest.raises(TemplateInvalid, match=name):
        store.find(layout, KEY)
    assert list(store.every(layout)) == []


def test_being_read_and_mapped_is_no_touch(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    """Privately and writable, which is how QEMU does it."""
    import mmap

    publish(KEY)
    with layout.template(KEY).memory.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 8192, flags=mmap.MAP_PRIVATE)
        mapped[0:4] = b"mine"
        mapped.close()
    found = store.find(layout, KEY)
    assert found is not None
    assert found.files.memory.read_bytes() == FILES["memory"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": 1}'])
def test_a_damaged_description(
    layout: Layout, publish: Callable[[str], store.Template], text: str
) -> None:
    publish(KEY)
    layout.template(KEY).facts.write_text(text)
    with pytest.raises(TemplateInvalid):
        store.find(layout, KEY)


@pytest.mark.parametrize("deed", [in_place, Path.unlink])
def test_a_damaged_state(
    layout: Layout, publish: Callable[[str], store.Template], deed: Callable[[Path], object]
) -> None:
    deed(publish(KEY).files.state)
    found = store.find(layout, KEY)
    assert found is not None
    with pytest.raises(TemplateInvalid, match="state"):
        found.state()


def test_a_missing_empty_disk(layout: Layout, publish: Callable[[str], store.Template]) -> None:
    made = publish(KEY)
    made.files.blank.unlink()
    with pytest.raises(TemplateInvalid, match="empty disk"):
        made.take_blank(layout.base / "overlay")


def test_publishing_again_replaces(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    first = publish(KEY)
    second = publish(KEY)
    assert store.find(layout, KEY) == second != first
    assert list(layout.staging.iterdir()) == []


def test_discard_frees_what_there_was(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    size = publish(KEY).size_bytes
    assert size >= sum(map(len, FILES.values())) // 4096 * 4096
    assert store.discard(layout, KEY) == size
    assert store.discard(layout, KEY) == 0
    assert store.find(layout, KEY) is None
    assert list(layout.staging.iterdir()) == []


def test_who_maps_a_discarded_template_keeps_it(
    publish: Callable[[str], store.Template], layout: Layout
) -> None:
    with publish(KEY).files.memory.open("rb") as file:
        store.discard(layout, KEY)
        assert file.read() == FILES["memory"]


def test_keys_by_their_first_digits(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    publish(KEY)
    publish(KEY[:-1] + "0")
    publish(OTHER)
    assert store.expand(layout, OTHER[:3]) == OTHER
    assert store.expand(layout, KEY) == KEY
    for digits in ("", KEY[:5], "77", "../x"):
        with pytest.raises(TemplateNotFound):
            store.expand(layout, digits)


def used(template: store.Template, at: float) -> None:
    template.touch()
    os.utime(template.files.used, (at, at))


def test_prune_keeps_what_is_wanted_and_was_used_last(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    keys = [digit * 32 for digit in "abcdef"]
    for age, key in enumerate(keys):
        used(publish(key), 1000 - age)
    layout.template("e" * 32).memory.unlink()
    assert [one.key for one in store.every(layout)] == [digit * 32 for digit in "abcdf"]
    assert store.prune(layout, lambda one: one.key != "a" * 32, keep=3) > 0
    assert store.keys(layout) == [digit * 32 for digit in "bcd"]
    assert list(layout.staging.iterdir()) == []


def test_prune_clears_locks_that_nobody_holds(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    publish(KEY)
    for key in (KEY, OTHER):
        layout.template_lock(key).touch()
    held = locks.acquire(layout.template_lock("0" * 32))
    try:
        store.prune(layout, lambda _: True)
    finally:
        assert held is not None
        os.close(held)
    left = {path.name for path in layout.templates.glob("*.lock")}
    assert left == {f"{KEY}.lock", f"{'0' * 32}.lock"}


def test_a_failure_is_remembered_for_a_while(
    layout: Layout, publish: Callable[[str], store.Template]
) -> None:
    assert store.failure(layout, KEY) is None
    store.note_failure(layout, KEY, "no room")
    assert store.failure(layout, KEY) == "no room"
    long_ago = time.time() - store.FAILURE_HOLDS_S - 1
    os.utime(layout.template_failure(KEY), (long_ago, long_ago))
    assert store.failure(layout, KEY) is None
    store.note_failure(layout, KEY, "no room")
    publish(KEY)
    assert store.failure(layout, KEY) is None


CRASH = """
import json, os, signal, sys
from pathlib import Path
from sandbox_rpc.host.paths import Layout, TemplateFolder
from sandbox_rpc.qemu import store
from sandbox_rpc.qemu.store import Origin

left = int(sys.argv[3])

def counted(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)

for name in ("open", "fsync", "rename", "replace", "unlink", "rmdir", "fchmod"):
    counted(name)
origin = Origin(**json.loads(sys.argv[4]))
store.publish(Layout(Path(sys.argv[1])), sys.argv[5], TemplateFolder(Path(sys.argv[2])), origin, "")
"""


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_point_there_is_none_or_a_whole_one(
    layout: Layout, publish: Callable[[str], store.Template], replacing: bool
) -> None:
    """Before each of its system calls in turn; real processes, a real kill -9."""
    origin = json.dumps(attrs.asdict(ORIGIN))
    kills, whole = 0, 0
    for calls in range(200):
        store.discard(layout, KEY)
        if replacing:
            publish(KEY)
        staged = stage(layout)
        done = subprocess.run(
            [sys.executable, "-c", CRASH, layout.base, staged.folder, str(calls), origin, KEY],
            check=False,
        )  # fmt: skip
        found = store.find(layout, KEY)  # raises if it is half of one
        if found is not None:
            whole += 1
            assert found.state() == FILES["state"]
            assert found.files.memory.read_bytes() == FILES["memory"]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
    else:
        raise AssertionError("it never came to its end")
    assert kills > 10
    assert whole >= (2 if not replacing else 3)
