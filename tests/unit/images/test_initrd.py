"""The small initrd: its archive, its order of modules, what it takes from a tree."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from sandbox_rpc.images import initrd
from sandbox_rpc.protocol.errors import BuildFailed

DEP = """\
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2.ko.xz
kernel/fs/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/lib/crc32c_generic.ko.xz:
kernel/net/9p/9pnet.ko: kernel/fs/netfs.ko
kernel/fs/netfs.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs.ko
kernel/drivers/virtio-blk.ko:
"""
SOFT = """\
# Soft dependencies
softdep ext4 pre: crc32c_generic post: nothing
softdep other post: x
"""


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of `newc` archives, from its documentation."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_size, size = fields[11], fields[6]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        assert fields[2:4] == [0, 0]
        assert fields[5] == 0
        found[name] = (fields[1], archive[start : start + size])
        at = (start + size + 3) // 4 * 4


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with busybox and some modules, as far as an initrd looks."""
    modules = tmp_path / "usr/lib/modules/6.12"
    for line in DEP.splitlines():
        path = modules / line.partition(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"code of {path.name}".encode()
        path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)
    (modules / "modules.dep").write_text(DEP)
    (modules / "modules.softdep").write_text(SOFT)
    busybox = tmp_path / "usr/bin/busybox"
    busybox.parent.mkdir(parents=True)
    busybox.write_bytes(b"busybox")
    return tmp_path


def names(order: list[str]) -> list[str]:
    return [Path(path).name.split(".")[0] for path in order]


def test_each_module_comes_after_what_it_needs() -> None:
    order = names(initrd.load_order(DEP, SOFT, ["9pnet_virtio", "ext4"]))
    assert order.index("netfs") < order.index("9pnet") < order.index("9pnet_virtio")
    for need in ("crc16", "mbcache", "jbd2", "crc32c_generic"):
        assert order.index(need) < order.index("ext4")
    assert len(order) == len(set(order))


def test_dashes_and_underscores_are_one_in_names_of_modules() -> None:
    assert names(initrd.load_order(DEP, SOFT, ["virtio_blk"])) == ["virtio-blk"]


def test_what_the_kernel_has_built_in_is_left_out() -> None:
    assert initrd.load_order(DEP, SOFT, ["virtio_pci"]) == []


def test_a_circle_is_an_error_and_not_for_ever() -> None:
    with pytest.raises(BuildFailed, match="circle"):
        initrd.load_order("a.ko: b.ko\nb.ko: a.ko\n", "", ["a"])


def test_the_archive_holds_unpacked_modules_and_an_executable_init(tree: Path) -> None:
    found = unpack(initrd.build(tree, "6.12", ["ext4"], ["9pnet_virtio"]))
    mode, script = found["init"]
    assert mode == 0o100755
    assert "modprobe -qa 9pnet_virtio" in script.decode()
    assert "switch_root /new /sbin/init" in script.decode()
    assert found["bin/busybox"] == (0o100755, b"busybox")
    assert found["lib/modules/6.12/ext4.ko"] == (0o100644, b"code of ext4.ko.xz")
    assert found["lib/modules/6.12/netfs.ko"][1] == b"code of netfs.ko"
    assert "lib/modules/6.12/virtio-blk.ko" not in found
    listing = found["lib/modules/6.12/modules.dep"][1].decode().splitlines()
    assert "ext4.ko: crc16.ko mbcache.ko jbd2.ko" in listing


def test_soft_needs_are_loaded_by_name(tree: Path) -> None:
    script = unpack(initrd.build(tree, "6.12", ["ext4"], []))["init"][1].decode()
    root = next(line for line in script.splitlines() if "ext4" in line and "modprobe" in line)
    assert root.index("crc32c_generic") < root.index("ext4")


def test_folders_come_before_what_is_in_them(tree: Path) -> None:
    order = list(unpack(initrd.build(tree, "6.12", ["ext4"], [])))
    for number, name in enumerate(order):
        parent = name.rpartition("/")[0]
        assert not parent or parent in order[:number], name


def test_the_archive_is_the_same_each_time(tree: Path) -> None:
    assert initrd.build(tree, "6.12", ["ext4"], []) == initrd.build(tree, "6.12", ["ext4"], [])


def test_a_tree_without_busybox(tree: Path) -> None:
    (tree / "usr/bin/busybox").unlink()
    with pytest.raises(BuildFailed, match="busybox"):
        initrd.build(tree, "6.12", ["ext4"], [])
