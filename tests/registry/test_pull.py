"""Pulled once, verified, resumed: against a real registry, with faults in between."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import zstandard

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import fetch, pull, qcow2, refs, store, unpack
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import (
    DigestMismatch,
    DiskFull,
    DownloadFailed,
    ImageInvalid,
    ImageNotFound,
)
from sandbox_rpc.protocol.progress import Progress
from tests.registry import faults
from tests.registry.conftest import Artifact, publish
from tests.registry.faults import Faulty
from tests.registry.server import Registry
from tests.unit.images import disks

NAME = "narkatee/sandbox-kvm-image:latest"

pytestmark = pytest.mark.usefixtures("brisk")


def got(
    layout: Layout, ref: str, report: Callable[[Progress], None] = lambda _: None, **options: Any
) -> StoredImage:
    """What `sandbox image pull` does, in this process."""
    options.setdefault("chosen", True)
    return anyio.run(partial(pull.pull, layout, ref, report, **options))


def left(layout: Layout) -> list[str]:
    """What lies about: parts of downloads and staging folders; locks do not count."""
    parts = [path.name for path in layout.ingest.iterdir() if path.suffix != ".lock"]
    return sorted([*parts, *(path.name for path in layout.staging.iterdir())])


def test_what_the_oras_cli_pushed_comes_out_as_it_was(
    registry: Registry, layout: Layout, artifact: Artifact
) -> None:
    digest = publish(registry.host, NAME, artifact.packed)
    told: list[Progress] = []
    image = got(layout, f"{registry.host}/{NAME}", told.append)
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert image.kernel.read_bytes() == disks.KERNEL
    assert image.initrd.read_bytes() == disks.INITRD
    assert image.manifest == digest
    assert image.ref == f"{registry.host}/{NAME}"
    assert image.kernel_command_line.startswith(f"root=PARTUUID={disks.GUID} rw console=ttyS0")
    assert (image.foreign, image.injects_agent, image.agent) == (True, True, True)
    assert image.created_at == "2026-11-23T17:05:29+00:00"
    assert left(layout) == []
    # By tag, by manifest, by digest: the same, without the network.
    for name in (image.ref, f"{registry.host}/{NAME.partition(':')[0]}@{digest}", digest):
        assert store.resolve(layout, name).digest == image.digest
    transfers = [one for one in told if one.done_bytes is not None]
    assert transfers[-1].done_bytes == transfers[-1].total_bytes == len(artifact.packed)
    assert [one.percentage for one in told] == sorted(one.percentage or 0 for one in told)


def test_the_older_form_and_a_plain_qcow2(
    registry: Registry, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, "old:1", artifact.packed, old=True)
    publish(registry.host, "plain:1", artifact.disk.read_bytes(), title="disk.qcow2")
    publish(registry.host, "unnamed:1", artifact.packed + b"", title="whatever.bin")
    found = [got(layout, f"{registry.host}/{name}:1") for name in ("old", "plain", "unnamed")]
    for image in found:
        assert image.disk.read_bytes() == artifact.disk.read_bytes()


def test_a_second_pull_fetches_nothing(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    first = got(layout, f"{faulty.host}/{NAME}")
    count = len(faulty.blobs)
    assert count == 1
    again = got(layout, f"{faulty.host}/{NAME}")
    assert again == first
    # Nor under another name of the same manifest.
    publish(registry.host, "other:1", artifact.packed)
    other = got(layout, f"{faulty.host}/other:1")
    assert other.digest == first.digest
    assert len(faulty.blobs) == count


def test_holes_stay_holes(registry: Registry, layout: Layout, tmp_path: Path) -> None:
    disk = disks.system(tmp_path)
    with disk.open("r+b") as file:
        file.truncate(disk.stat().st_size + (200 << 20))
    publish(registry.host, "sparse:1", zstandard.ZstdCompressor().compress(disk.read_bytes()))
    image = got(layout, f"{registry.host}/sparse:1")
    assert image.disk.stat().st_size == disk.stat().st_size
    assert image.disk.stat().st_blocks * 512 < 100 << 20
    assert image.disk.read_bytes() == disk.read_bytes()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "plan",
    [
        [faults.drop(0)],
        [faults.drop(1)],
        [faults.drop(3_000_000), faults.drop(5_000_000), faults.drop(100)],
        [faults.drop(1_000), faults.whole],
        [faults.drop(1_000_000), faults.other_range],
        [faults.drop(1_000_000), faults.no_range],
        [faults.status(500), faults.status(503), faults.status(429, **{"Retry-After": "0"})],
        [faults.stall(2_000_000), faults.stall(0)],
        [faults.trickle(0.3)],
    ],
    ids=lambda plan: "-".join(getattr(one, "__qualname__", "?").split(".")[0] for one in plan),
)
def test_what_a_bad_network_does_is_made_good(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact,
    plan: list[faults.Fault],
) -> None:  # fmt: skip
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.extend(plan)
    image = got(layout, f"{faulty.host}/{NAME}")
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert not faulty.plan
    assert left(layout) == []


def test_after_a_drop_only_the_rest_is_asked_for(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.append(faults.drop(3_000_000))
    got(layout, f"{faulty.host}/{NAME}")
    first, second = faulty.blobs
    assert first.range == ""
    assert second.range == "bytes=3000000-"


def test_a_server_that_is_gone_for_good_leaves_what_the_next_pull_goes_on_from(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    ref = f"{faulty.host}/{NAME}"
    faulty.plan.extend([faults.drop(4_000_000), *[faults.drop(0)] * 10])
    with pytest.raises(DownloadFailed) as caught:
        got(layout, ref)
    assert caught.value.details["doneBytes"] == 4_000_000
    assert left(layout) == [f"{artifact.blob.hex}.partial"]
    assert refs.read(layout, ref) is None
    faulty.plan.clear()
    image = got(layout, ref)
    assert faulty.blobs[-1].range == "bytes=4000000-"
    assert image.disk.read_bytes() == artifact.disk.read_bytes()
    assert left(layout) == []


def test_a_part_that_a_crash_has_spoiled_is_fetched_anew(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    layout.partial(artifact.blob.hex).write_bytes(bytes(2_000_000))
    image = got(layout, f"{faulty.host}/{NAME}")
    assert [one.range for one in faulty.blobs] == ["bytes=2000000-", ""]
    assert image.disk.read_bytes() == artifact.disk.read_bytes()


def test_a_part_that_is_longer_than_the_whole(
    registry: Registry, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    layout.partial(artifact.blob.hex).write_bytes(artifact.packed + b"more")
    assert got(layout, f"{registry.host}/{NAME}").disk.read_bytes() == artifact.disk.read_bytes()


def test_a_part_that_is_all_of_it(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    layout.partial(artifact.blob.hex).write_bytes(artifact.packed)
    assert got(layout, f"{faulty.host}/{NAME}").disk.read_bytes() == artifact.disk.read_bytes()
    assert faulty.blobs == []


@pytest.mark.parametrize(
    "fault",
    [
        faults.tamper(0), faults.tamper(-1), faults.tamper(6_000_000), faults.longer,
        faults.longer_in_chunks, faults.shorter,
    ],
    ids=["first", "last", "middle", "longer", "longer-in-chunks", "shorter"],
)  # fmt: skip
def test_what_is_not_what_was_published_is_refused(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact, fault: faults.Fault
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.plan.append(fault)
    ref = f"{faulty.host}/{NAME}"
    with pytest.raises(DigestMismatch):
        got(layout, ref)
    assert left(layout) == []
    assert refs.read(layout, ref) is None
    assert list(layout.images.iterdir()) == []
    # And the next one gets it.
    assert got(layout, ref).disk.read_bytes() == artifact.disk.read_bytes()


def test_a_manifest_that_is_not_the_one_that_was_named(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    digest = publish(registry.host, NAME, artifact.packed)
    faulty.manifest = faults.tamper(40)
    for name in (NAME, f"{NAME.partition(':')[0]}@{digest}"):
        with pytest.raises(DigestMismatch):
            got(layout, f"{faulty.host}/{name}")
    # Nor where the server says the digest of what it sends instead.
    faulty.manifest = lambda handler, answer: handler.send(
        faults.Answer(200, {}, answer.body.replace(b"nocloud", b"no0loud"))
    )
    with pytest.raises(DigestMismatch):
        got(layout, f"{faulty.host}/{NAME.partition(':')[0]}@{digest}")


def test_a_manifest_of_many_megabytes(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    faulty.manifest = lambda handler, answer: handler.send(faults.Answer(200, {}, b" " * (5 << 20)))
    with pytest.raises(DownloadFailed, match="longer than"):
        got(layout, f"{faulty.host}/{NAME}")


def packed(disk: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(disk)


def packed_with(disk: bytes, **options: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(**options)
    # In a stream: where the size is known, the window is no larger.
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(disk) + stream.flush()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda disk: packed(disk)[:-700], "its end is missing|damaged"),
        (lambda disk: packed(disk) + b"rubbish", "damaged"),
        (lambda disk: gzip.compress(disk, 1), "gzip"),
        (lambda disk: lzma.compress(disk, preset=0), "xz"),
        (lambda disk: b"plain text, longer than any head that is looked at", "neither"),
        (lambda disk: packed_with(disk, window_log=28, enable_ldm=True), "window"),
        (lambda disk: packed(b"QFI" + disk[4:]), "not a qcow2"),
        (lambda disk: packed(disk[:8] + (4096).to_bytes(8, "big") + disk[16:]), "backing file"),
    ],
    ids=["truncated", "rubbish-behind", "gzip", "xz", "text", "window", "magic", "backing"],
)  # fmt: skip
def test_what_was_published_wrongly_is_refused(
    registry: Registry, layout: Layout, artifact: Artifact, make: Callable[[bytes], bytes], why: str
) -> None:
    publish(registry.host, "wrong:1", make(artifact.disk.read_bytes()))
    with pytest.raises(ImageInvalid, match=why):
        got(layout, f"{registry.host}/wrong:1")
    assert left(layout) == []
    assert list(layout.images.iterdir()) == []


def test_several_frames_and_frames_to_be_skipped(
    registry: Registry, layout: Layout, artifact: Artifact
) -> None:
    disk = artifact.disk.read_bytes()
    cut = len(disk) // 3
    skip = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    pack = zstandard.ZstdCompressor().compress
    publish(registry.host, "frames:1", skip + pack(disk[:cut]) + skip + pack(disk[cut:]) + skip)
    assert got(layout, f"{registry.host}/frames:1").disk.read_bytes() == disk


def test_a_file_cut_off_at_any_place_is_noticed() -> None:
    class Bytes:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, count: int) -> bytes:
            piece, self.data = self.data[:count], self.data[count:]
            return piece

    class Out(unpack.Sparse):
        def __init__(self) -> None:
            self.content = b""

        def write(self, data: memoryview) -> None:
            self.content += bytes(data)

    noise = random.Random(3).randbytes(300_000)
    for content in (
        noise + bytes(300_000),
        bytes(9),
        b"\xa5" * 300,
        b"",
        b"text " * 50_000 + noise,
    ):
        whole = zstandard.ZstdCompressor().compress(content)
        out = Out()
        unpack.unzstd(Bytes(whole), out)
        assert out.content == content
        ends = {*range(1, 30), *range(len(whole) - 30, len(whole))}
        for place in sorted({*ends, *range(40, len(whole), 9973)} & {*range(1, len(whole))}):
            with pytest.raises(ImageInvalid):
                unpack.unzstd(Bytes(whole[:place]), Out())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"layers": []}, "no layers"),
        ({"layers": "x"}, "no layers"),
        ({"layers": [{"digest": "sha256:00", "size": 5}]}, "digest"),
        ({"layers": [{"digest": "sha512:" + "0" * 128, "size": 5}]}, "digest"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1 << 60}]}, "bytes"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}, "bytes"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": True}]}, "bytes"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 7,
                      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}]}, "no disk"),
        ({"layers": [{}] * 65}, "layers"),
        ({"schemaVersion": 1}, "version"),
        ({"manifests": [{"digest": "sha256:" + "0" * 64, "size": 7,
                         "platform": {"architecture": "s390x"}}]}, "nothing for"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_manifests_that_make_no_sense(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact,
    change: dict[str, object], why: str,
) -> None:  # fmt: skip
    publish(registry.host, NAME, artifact.packed)

    def change_it(handler: faults.Handler, answer: faults.Answer) -> None:
        handler.send(faults.Answer(200, {}, json.dumps(json.loads(answer.body) | change).encode()))

    faulty.manifest = change_it
    with pytest.raises(ImageInvalid, match=why):
        got(layout, f"{faulty.host}/{NAME}")


def test_an_index_leads_to_this_machines_manifest(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact
) -> None:
    inner = publish(registry.host, NAME, artifact.packed)
    size = None

    def index(handler: faults.Handler, answer: faults.Answer) -> None:
        nonlocal size
        if inner in handler.path:
            return handler.send(answer)
        size = len(answer.body)
        entries = [
            {"digest": "sha256:" + "0" * 64, "size": 5, "platform": {"architecture": "s390x"}},
            {"digest": inner, "size": size, "platform": {"architecture": "amd64"}},
        ]
        value = {"schemaVersion": 2, "manifests": entries}
        return handler.send(faults.Answer(200, {}, json.dumps(value).encode()))

    faulty.manifest = index
    image = got(layout, f"{faulty.host}/{NAME}")
    assert image.manifest == inner
    entry = refs.read(layout, image.ref)
    assert entry is not None
    # The name stands for the index: that is what has to be compared later.
    assert entry.manifest not in (None, inner)


def test_what_the_registry_does_not_have(registry: Registry, layout: Layout) -> None:
    with pytest.raises(ImageNotFound, match="has no"):
        got(layout, f"{registry.host}/nothing/here:1")


def test_a_registry_that_is_not_there(layout: Layout) -> None:
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        got(layout, "127.0.0.1:9/x:1", patient=False)


def test_a_local_name_is_not_pulled(layout: Layout) -> None:
    with pytest.raises(DownloadFailed, match="names no registry"):
        got(layout, "local/debian-13")


def test_no_room_before_and_meanwhile(
    registry: Registry, faulty: Faulty, layout: Layout, artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    publish(registry.host, NAME, artifact.packed)
    ref = f"{faulty.host}/{NAME}"
    real = os.statvfs
    asked = 0
    limit = 0

    class Full:
        f_bavail = 0
        f_frsize = 4096

    def statvfs(path: object) -> object:
        nonlocal asked
        asked += 1
        return Full() if asked > limit else real(path)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(DiskFull) as caught:
        got(layout, ref)
    assert caught.value.details["neededBytes"] > 0
    assert faulty.blobs == []
    # The second question is about what it unpacks to: known from the first bytes.
    asked, limit = 0, 1
    with pytest.raises(DiskFull):
        got(layout, ref)
    assert [name for name in left(layout) if not name.endswith(".partial")] == []
    monkeypatch.setattr(os, "statvfs", real)
    assert got(layout, ref).disk.read_bytes() == artifact.disk.read_bytes()


def test_a_disk_that_fills_up_keeps_what_has_come(
    registry: Registry, layout: Layout, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry.host, NAME, artifact.packed)
    real, written = os.pwrite, 0

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 5 << 20:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskFull):
        got(layout, f"{registry.host}/{NAME}")
    monkeypatch.undo()
    (name,) = left(layout)
    assert name == f"{artifact.blob.hex}.partial"
    assert got(layout, f"{registry.host}/{NAME}").disk.read_bytes() == artifact.disk.read_bytes()


def test_a_disk_larger_than_any_may_be(
    registry: Registry, layout: Layout, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry.host, NAME, artifact.packed)
    monkeypatch.setattr(unpack, "MAX_UNPACKED", 4 << 20)
    with pytest.raises(ImageInvalid, match="unpacks to more"):
        got(layout, f"{registry.host}/{NAME}")
    assert left(layout) == []


def test_a_tag_that_moves_is_taken_and_the_old_image_stays(
    registry: Registry, layout: Layout, artifact: Artifact, tmp_path: Path
) -> None:
    publish(registry.host, "moving:1", artifact.packed)
    first = got(layout, f"{registry.host}/moving:1")
    other = disks.system(tmp_path / "other", files={**disks.SYSTEM, "etc/motd": b"new"})
    publish(registry.host, "moving:1", zstandard.ZstdCompressor().compress(other.read_bytes()))
    second = got(layout, f"{registry.host}/moving:1")
    assert second.digest != first.digest
    assert store.resolve(layout, first.ref) == second
    assert store.resolve(layout, first.digest).disk.read_bytes() == artifact.disk.read_bytes()
    assert [image.digest for image in store.unnamed(layout)] == [first.digest]


def test_what_is_damaged_here_is_repaired_by_a_pull(
    registry: Registry, layout: Layout, artifact: Artifact
) -> None:
    publish(registry.host, NAME, artifact.packed)
    image = got(layout, f"{registry.host}/{NAME}")
    image.disk.chmod(0o600)
    os.truncate(image.disk, 100)
    with pytest.raises(ImageInvalid):
        store.resolve(layout, image.ref)
    again = got(layout, image.ref)
    assert again.digest == image.digest
    assert again.disk.read_bytes() == artifact.disk.read_bytes()


def test_a_pace_is_that_of_the_last_seconds() -> None:
    now = 0.0
    pace = fetch.Pace(10, clock=lambda: now)
    for second in range(1, 31):
        now = float(second)
        pace.add(1000 if second <= 20 else 10)
        assert pace.is_known == (second >= 10)
    assert 9 <= pace.rate <= 120
    assert qcow2.MAGIC == unpack.QCOW2
