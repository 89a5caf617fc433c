"""The real command, several at once, killed at bad moments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.host import locks, process
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import store
from tests.registry import faults
from tests.registry.conftest import Artifact, publish
from tests.registry.faults import Faulty
from tests.registry.server import Registry
from tests.unit.images import disks

NAME = "team/image:1"


class Commands:
    """`sandbox ...` with a cache of its own; what is left of them ends with the test."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self.layout = layout
        self._folder = folder
        self._children: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandbox_rpc.cli.main", *words],
            env={
                "PATH": os.environ["PATH"], "HOME": str(self._folder),
                "SANDBOX_CACHE_BASE": str(self.layout.base), **environment,
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._children.append(child)
        return child

    def run(self, *words: str, status: int = 0) -> str:
        """What it printed; errors where a failure is expected."""
        child = self.start(*words)
        out, err = child.communicate(timeout=120)
        assert child.returncode == status, (out, err)
        return err if status else out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def end(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.communicate()


@pytest.fixture
def sandbox(layout: Layout, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(layout, tmp_path)
    yield commands
    commands.end()


def wait_for(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def worker_of(layout: Layout, blob: str) -> process.ProcessId:
    """The process that downloads a blob."""
    (pid,) = locks.holders(layout.ingest_lock(blob))
    found = process.identify(pid)
    assert found is not None
    return found


def test_one_command_from_nothing_to_an_image(
    registry: Registry, sandbox: Commands, artifact: Artifact
) -> None:
    digest = publish(registry.host, NAME, artifact.packed)
    ref = f"{registry.host}/{NAME}"
    said = sandbox.run("image", "pull", ref)
    assert said.startswith(f"{ref} is here: sha256:")
    assert "up to date" in sandbox.run("image", "pull", ref)
    (listed,) = sandbox.json("image", "list")
    assert (listed["ref"], listed["manifest"]) == (ref, digest)
    assert "AGE" in sandbox.run("image", "list")
    sandbox.run("image", "remove", ref)
    assert sandbox.json("image", "list") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_taken_up_again(
    registry: Registry, faulty: Faulty, sandbox: Commands, artifact: Artifact,
    number: signal.Signals,
) -> None:  # fmt: skip
    publish(registry.host, NAME, artifact.packed)
    ref = f"{faulty.host}/{NAME}"
    faulty.plan.append(faults.slow(0.05))
    partial = sandbox.layout.partial(artifact.blob.hex)
    child = sandbox.start("image", "pull", ref)
    wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20, "some of it")
    worker = worker_of(sandbox.layout, artifact.blob.hex)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode in (-signal.SIGKILL, 130), err
    assert "Traceback" not in err
    # Nobody goes on for a command that has gone.
    wait_for(lambda: not worker.is_alive(), "the end of the download")
    size = partial.stat().st_size
    assert size > 1 << 20
    assert sandbox.json("image", "list") == []
    if number != signal.SIGKILL:
        assert list(sandbox.layout.staging.iterdir()) == []
    sandbox.run("image", "pull", ref)
    assert faulty.blobs[-1].range == f"bytes={size}-"
    image = store.resolve(sandbox.layout, ref)
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert list(sandbox.layout.staging.iterdir()) == []
    assert not partial.exists()


def test_the_downloading_process_itself_is_killed(
    registry: Registry, faulty: Faulty, sandbox: Commands, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.append(faults.slow(0.05))
    partial = sandbox.layout.partial(artifact.blob.hex)
    child = sandbox.start("image", "pull", f"{faulty.host}/{NAME}")
    wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20, "some of it")
    worker_of(sandbox.layout, artifact.blob.hex).kill(signal.SIGKILL)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 12
    assert "What has been downloaded is kept" in err
    assert partial.exists()


def test_four_at_once_are_one_download_and_all_see_how_far_it_is(
    registry: Registry, faulty: Faulty, sandbox: Commands, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    ref = f"{faulty.host}/{NAME}"
    faulty.plan.append(faults.slow(0.03))
    children = [sandbox.start("image", "pull", ref) for _ in range(4)]
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * 4, said
    assert len(faulty.blobs) == 1
    waited = [err for _, err in said if "Waiting for another download" in err]
    assert len(waited) == 3
    for err in waited:
        # The other one's bytes, in steps.
        assert err.count(" MiB") >= 2, err


def test_who_waits_takes_over_from_who_was_killed(
    registry: Registry, faulty: Faulty, sandbox: Commands, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    ref = f"{faulty.host}/{NAME}"
    faulty.plan.append(faults.slow(0.05))
    partial = sandbox.layout.partial(artifact.blob.hex)
    first = sandbox.start("image", "pull", ref)
    wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20, "some of it")
    second = sandbox.start("image", "pull", ref)
    wait_for(lambda: len([one for one in faulty.asked if "manifests" in one.path]) == 2, "both")
    first.kill()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "is here" in out
    assert len(faulty.blobs) == 2
    assert faulty.blobs[-1].range.startswith("bytes=")


def test_errors_have_their_words_and_their_status(registry: Registry, sandbox: Commands) -> None:
    said = sandbox.run("image", "pull", f"{registry.host}/nothing:1", status=12)
    assert "has no" in said
    assert "hint:" in said
    said = sandbox.run("image", "pull", "Not A Name", status=12)
    assert "is not a name" in said
    said = sandbox.run("image", "pull", "127.0.0.1:9/x:1", "--json", status=12)
    assert json.loads(said.splitlines()[-1])["data"]["kind"] == "downloadFailed"


def test_pushed_and_pulled_again(
    registry: Registry, sandbox: Commands, artifact: Artifact, tmp_path: Path
) -> None:
    sandbox.run("image", "import", str(artifact.disk), "local/mine")
    target = f"{registry.host}/pushed/image:1"
    pushed = sandbox.json("image", "push", "local/mine", target)
    # The same again uploads nothing and is the same.
    assert sandbox.json("image", "push", "local/mine", target) == pushed
    names = {one["ref"]: one for one in sandbox.json("image", "list")}
    assert set(names) == {"local/mine", target}
    assert names[target]["manifest"] == pushed["manifest"]
    assert "up to date" in sandbox.run("image", "pull", target)
    other = Commands(Layout(tmp_path / "other"), tmp_path)
    try:
        other.run("image", "pull", target)
        mine = store.resolve(sandbox.layout, "local/mine")
        theirs = store.resolve(other.layout, target)
    finally:
        other.end()
    assert theirs.manifest == pushed["manifest"]
    for name in (store.DISK, store.KERNEL, store.INITRD):
        assert (theirs.folder / name).read_bytes() == (mine.folder / name).read_bytes()
    for field in ("kernel_command_line", "arch", "created_at", "foreign", "ssh_port", "disk_mib"):
        assert getattr(theirs, field) == getattr(mine, field)


@pytest.mark.parametrize("path", ["layout", "layout.tar"])
def test_exported_and_imported_again(
    sandbox: Commands, artifact: Artifact, tmp_path: Path, path: str
) -> None:
    sandbox.run("image", "import", str(artifact.disk), "local/mine")
    target = tmp_path / path
    exported = sandbox.json("image", "export", "local/mine", str(target))
    assert "is there already" in sandbox.run(
        "image", "export", "local/mine", str(target), status=10
    )
    imported = sandbox.json("image", "import", str(target), "local/back")
    assert imported["manifest"] == exported["manifest"]
    back = store.resolve(sandbox.layout, "local/back")
    assert back.disk.read_bytes() == artifact.disk.read_bytes()
    assert back.kernel.read_bytes() == disks.KERNEL
    if path == "layout":
        (blob,) = [p for p in (target / "blobs/sha256").iterdir() if p.stat().st_size > 1 << 20]
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
        sandbox.run("image", "remove", "local/back")
        said = sandbox.run("image", "import", str(target), "local/back", status=12)
        assert "not what was published" in said


def test_what_can_be_imported(sandbox: Commands, artifact: Artifact, tmp_path: Path) -> None:
    packed = tmp_path / "Debian 13.qcow2.zst"
    packed.write_bytes(artifact.packed)
    value = sandbox.json("image", "import", str(packed))
    assert value["ref"] == "local/debian-13"
    assert value["createdAt"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("x" * 200)
    (tmp_path / "short").write_bytes(artifact.packed[:-300])
    over = tmp_path / "over.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(artifact.disk), "-F", "qcow2"]
    subprocess.run([*argv, str(over)], check=True)
    for path, why in (
        ("nothing", "nothing at"), ("folder", "not an OCI layout"), ("text", "neither"),
        ("short", "damaged"), ("over.qcow2", "backing file"),
    ):  # fmt: skip
        assert why in sandbox.run("image", "import", str(tmp_path / path), status=12)
    assert [one["ref"] for one in sandbox.json("image", "list")] == ["local/debian-13"]
    assert list(sandbox.layout.staging.iterdir()) == []


def test_a_tag_that_has_moved_is_reported_and_not_taken(
    registry: Registry, sandbox: Commands, artifact: Artifact
) -> None:
    ref = f"{registry.host}/watched:1"
    publish(registry.host, "watched:1", artifact.packed)
    sandbox.run("image", "pull", ref)
    (before,) = sandbox.json("image", "list", "--check")
    assert "newer" not in before
    newer = publish(registry.host, "watched:1", artifact.packed, old=True)
    assert sandbox.json("image", "list") == [before]
    (after,) = sandbox.json("image", "list", "--check")
    assert after["newer"] == newer
    assert after["digest"] == before["digest"]
    assert "has moved: pull it" in sandbox.run("image", "list")
    sandbox.run("image", "pull", ref)
    listed = sandbox.json("image", "list")
    assert [one.get("newer") for one in listed] == [None] * len(listed)


def test_pruning_takes_what_nothing_needs(
    registry: Registry, sandbox: Commands, artifact: Artifact
) -> None:
    sandbox.run("image", "import", str(artifact.disk), "local/one")
    (one,) = sandbox.json("image", "list")
    old = sandbox.layout.partial("0" * 64)
    old.write_bytes(b"x" * 10_000)
    os.utime(old, (1, 1))
    fresh = sandbox.layout.partial("1" * 64)
    fresh.write_bytes(b"x" * 10_000)
    disk = store.resolve(sandbox.layout, "local/one").disk
    (sandbox.layout.refs / "local" / "one.json").unlink()
    assert [value["ref"] for value in sandbox.json("image", "list")] == [one["digest"]]
    # A QEMU that nobody here knows of has it open.
    argv = ["qemu-io", "-r", "-f", "qcow2", str(disk)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"read 0 512\n")
        child.stdin.flush()
        assert b"read 512" in child.stdout.readline() + child.stdout.readline()
        pruned = sandbox.json("image", "prune")
        assert (pruned["digests"], pruned["freedBytes"] > 0) == ([], True)
        assert not old.exists()
        assert fresh.exists()
        said = sandbox.run("image", "remove", one["digest"], status=12)
        assert "needed" in said
        child.stdin.close()
        child.wait()
    pruned = sandbox.json("image", "prune", "--all")
    assert pruned["digests"] == [one["digest"]]
    assert not fresh.exists()
    assert sandbox.json("image", "list") == []
