"""Images: published whole or not at all, named, found, removed when nobody needs them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import refs, store
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import ImageInUse, ImageInvalid, ImageNotFound, StateNewer

Publish = Callable[[str, str], StoredImage]
Stage = Callable[[str], tuple[Path, str]]


def test_a_published_image_is_found_by_name_and_by_digest(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    assert store.resolve(layout, "local/debian-13") == image
    assert store.resolve(layout, image.digest) == image
    assert store.resolve(layout, image.digest.removeprefix("sha256:")[:12]) == image
    assert image.disk.read_text() == "one"
    assert image.kernel_command_line == "root=/dev/vda rw"
    assert (image.agent, image.ssh_port, image.disk_mib) == (True, 22, 8192)
    assert image.size_bytes == len("one" + "kernel" + "initrd")


def test_the_digest_names_what_is_in_the_image(stage: Stage) -> None:
    (_, one), (_, other) = stage("one"), stage("other")
    assert one != other


def test_publishing_leaves_nothing_in_staging_and_only_private_folders(
    layout: Layout, publish: Publish
) -> None:
    image = publish("local/debian-13", "one")
    assert list(layout.staging.iterdir()) == []
    assert stat.S_IMODE(image.folder.stat().st_mode) == 0o700


def test_publishing_the_same_content_again_keeps_the_image(
    layout: Layout, publish: Publish
) -> None:
    first = publish("local/debian-13", "one")
    inode = first.disk.stat().st_ino
    second = publish("local/other", "one")
    assert second.digest == first.digest
    assert second.disk.stat().st_ino == inode
    assert refs.names(layout) == ["local/debian-13", "local/other"]


def test_a_name_moves_to_the_new_image_and_the_old_one_stays(
    layout: Layout, publish: Publish
) -> None:
    old = publish("local/debian-13", "one")
    new = publish("local/debian-13", "two")
    assert store.resolve(layout, "local/debian-13") == new
    assert store.resolve(layout, old.digest).disk.read_text() == "one"


def test_a_crash_between_the_two_renames_leaves_the_old_image_named(
    layout: Layout, publish: Publish, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish("local/debian-13", "one")
    staged, digest = stage("two")

    def crash(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "name_image", crash)
        with pytest.raises(KeyboardInterrupt):
            store.publish(layout, "local/debian-13", staged, digest)
    assert store.resolve(layout, "local/debian-13") == old
    assert sum(store.prune(layout).values()) > 0
    assert [p.name for p in layout.images.iterdir()] == [old.folder.name]


@pytest.mark.parametrize(
    "ref",
    [
        "", "/local/x", "../x", "local/../x", "local//x", "local/x/", "local/x:", "local/x y",
        "local/x\n", "local/x\x07", "Local/X", ".hidden", "x/.json", "a.json/b", "x" * 256,
    ],
)  # fmt: skip
def test_names_that_no_image_can_have(layout: Layout, ref: str) -> None:
    with pytest.raises(ImageNotFound):
        store.resolve(layout, ref)
    with pytest.raises(ImageNotFound):
        store.remove(layout, ref)


@pytest.mark.parametrize(
    "ref", ["local/debian-13", "local/debian-13:plain", "debian", "registry.example.org/a/b_c:1.0"]
)
def test_names_that_images_have(layout: Layout, publish: Publish, ref: str) -> None:
    publish(ref, "one")
    assert store.resolve(layout, ref).ref == ref
    assert refs.names(layout) == [ref]


def test_what_is_not_there(layout: Layout) -> None:
    for ref in ("local/nothing", "sha256:" + "0" * 64, "0" * 12):
        with pytest.raises(ImageNotFound):
            store.resolve(layout, ref)


@pytest.mark.parametrize("name", [store.DISK, store.KERNEL, store.INITRD, store.METADATA])
def test_a_missing_file_makes_an_image_invalid(layout: Layout, publish: Publish, name: str) -> None:
    image = publish("local/debian-13", "one")
    (image.folder / name).unlink()
    with pytest.raises(ImageInvalid):
        store.resolve(layout, "local/debian-13")
    assert store.list_images(layout) == []


def test_a_truncated_disk_makes_an_image_invalid(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    image.disk.chmod(0o644)
    os.truncate(image.disk, 1)
    with pytest.raises(ImageInvalid, match=r"disk\.qcow2"):
        store.resolve(layout, "local/debian-13")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "x"}', '{"schema": 1, "files": []}'])
def test_metadata_that_makes_no_sense(layout: Layout, publish: Publish, text: str) -> None:
    image = publish("local/debian-13", "one")
    metadata = image.folder / store.METADATA
    metadata.chmod(0o644)
    metadata.write_text(text)
    with pytest.raises(ImageInvalid):
        store.resolve(layout, "local/debian-13")


def test_metadata_of_a_newer_version(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    metadata = image.folder / store.METADATA
    newer = json.loads(metadata.read_text()) | {"schema": store.SCHEMA + 1}
    metadata.chmod(0o644)
    metadata.write_text(json.dumps(newer))
    with pytest.raises(StateNewer):
        store.resolve(layout, "local/debian-13")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"digest": 5}', '{"digest": "../../etc"}'])
def test_a_damaged_reference_is_reported_and_can_be_removed(layout: Layout, text: str) -> None:
    (layout.refs / "broken.json").write_text(text)
    with pytest.raises(ImageInvalid):
        store.resolve(layout, "broken")
    with pytest.raises(ImageInvalid):
        store.remove(layout, "broken")
    assert refs.names(layout) == []


def test_removing_the_last_name_removes_the_files(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    publish("local/other", "one")
    assert store.remove(layout, "local/other") == 0
    assert image.folder.is_dir()
    assert store.remove(layout, "local/debian-13") > 0
    assert list(layout.images.iterdir()) == []
    assert list(layout.staging.iterdir()) == []


def test_removing_by_digest_removes_all_names(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    publish("local/other", "one")
    assert store.remove(layout, image.digest) > 0
    assert refs.names(layout) == []
    assert list(layout.images.iterdir()) == []


def test_an_image_in_use_keeps_its_last_name(layout: Layout, publish: Publish) -> None:
    image = publish("local/debian-13", "one")
    publish("local/other", "one")
    users = {image.digest: ["sandbox-a"]}
    store.remove(layout, "local/other", lambda digest: users.get(digest, []))
    with pytest.raises(ImageInUse) as caught:
        store.remove(layout, "local/debian-13", lambda digest: users.get(digest, []))
    assert caught.value.details["users"] == ["sandbox-a"]
    with pytest.raises(ImageInUse):
        store.remove(layout, image.digest, {image.digest})
    assert store.resolve(layout, "local/debian-13") == image


def test_pruning_keeps_what_is_named_or_in_use(layout: Layout, publish: Publish) -> None:
    used = publish("local/debian-13", "one")
    unused = publish("local/debian-13", "two")
    named = publish("local/debian-13", "three")
    store.prune(layout, {used.digest})
    left = {p.name for p in layout.images.iterdir()}
    assert left == {used.folder.name, named.folder.name}
    assert unused.folder.name not in left


def test_listing_without_a_cache(tmp_path: Path) -> None:
    assert store.list_images(Layout(tmp_path / "nothing")) == []
