"""qcow2, GPT and ext4 read without QEMU, mounts or root: against what QEMU's and e2fsprogs' tools
have written, in all the forms these have."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest

from sandbox_rpc.images import extract, partitions, qcow2
from sandbox_rpc.images.ext4 import Ext4
from sandbox_rpc.images.partitions import Window
from sandbox_rpc.protocol.errors import ImageInvalid, SandboxError
from tests.unit.images import disks


class Raw:
    """A file as a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `disk.raw` and `disk.qcow2`."""
    folder = tmp_path_factory.mktemp("disk")
    disks.system(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-c",),
        ("-c", "-o", "compression_type=zstd"),
        ("-o", "extended_l2=on,cluster_size=128k"),
        ("-o", "cluster_size=4k"),
        ("-o", "compat=0.10"),
        ("-c", "-o", "cluster_size=2M"),
    ],
    ids=str,
)
def test_every_form_of_qcow2_holds_the_same_disk(
    made: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    path = disks.qcow2(tmp_path / "disk.qcow2", made / "disk.raw", *options)
    with qcow2.Disk(path) as disk:
        assert disk.size == (made / "disk.raw").stat().st_size
        step = 1 << 20
        with (made / "disk.raw").open("rb") as raw:
            for offset in range(0, disk.size, step):
                count = min(step, disk.size - offset)
                assert disk.read(offset, count) == raw.read(count), offset
        with pytest.raises(ImageInvalid):
            disk.read(disk.size - 1, 2)


def test_a_partly_written_cluster_of_parts(tmp_path: Path) -> None:
    path = tmp_path / "parts.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=64k"]
    subprocess.run([*argv, str(path), "1M"], check=True)
    commands = ["write -P 7 4096 2048", "write -z 6144 2048", "write -P 9 70000 3000"]
    argv = ["qemu-io", "-f", "qcow2", *(word for c in commands for word in ("-c", c)), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    with qcow2.Disk(path) as disk:
        content = disk.read(0, disk.size)
    assert content[4096:6144] == b"\7" * 2048
    assert content[70000:73000] == b"\t" * 3000
    assert content.count(0) == len(content) - 2048 - 3000


def header(path: Path) -> bytearray:
    return bytearray(path.read_bytes()[: 1 << 16])


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, b"QFI\0", "not a qcow2"),
        (4, b"\0\0\0\4", "version"),
        (8, struct.pack(">QI", 0x1000, 11), "backing file"),
        (20, b"\0\0\0\x40", "clusters"),
        (24, bytes(8), "bytes"),
        (24, b"\x7f" + bytes(7), "bytes"),
        (32, b"\0\0\0\2", "encrypted"),
        (36, b"\x7f\0\0\0", "table"),
        (72, struct.pack(">Q", 2), "damaged"),
        (72, struct.pack(">Q", 4), "data lies in another file"),
        (72, struct.pack(">Q", 1 << 40), "features"),
        (104, b"\7", "features"),
    ],
)
def test_what_is_refused_before_anything_opens_it(
    made: Path, tmp_path: Path, offset: int, value: bytes, why: str
) -> None:
    head = header(made / "disk.qcow2")
    head[offset : offset + len(value)] = value
    path = tmp_path / "bad.qcow2"
    path.write_bytes(head)
    with pytest.raises(ImageInvalid, match=why):
        qcow2.inspect(path)


def test_what_qemu_itself_would_follow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 65536)
    over, apart = tmp_path / "over.qcow2", tmp_path / "apart.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    argv = ["-b", str(tmp_path / "secret"), "-F", "raw", str(over)]
    subprocess.run([*create, *argv], check=True)
    argv = ["-o", f"data_file={tmp_path / 'data'},data_file_raw=on", str(apart), "1M"]
    subprocess.run([*create, *argv], check=True)
    for path in (over, apart):
        with pytest.raises(ImageInvalid, match="any of this host's"):
            qcow2.inspect(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext4", ()),
        ("ext2", ()),
        ("ext3", ("-b", "1024")),
        ("ext4", ("-b", "1024", "-O", "bigalloc,inline_data")),
        ("ext4", ("-I", "256", "-O", "inline_data,large_dir,metadata_csum_seed")),
        ("ext4", ("-O", "meta_bg,^resize_inode", "-b", "1024")),
        ("ext4", ("-O", "^64bit,^metadata_csum,^flex_bg", "-N", "4000")),
        (
            "ext4",
            ("-O", "sparse_super2,meta_bg,^resize_inode", "-E", "num_backup_sb=1", "-b", "1024"),
        ),
        ("ext4", ("-O", "casefold", "-E", "encoding=utf8")),
    ],
    ids=str,
)
def test_every_form_of_ext_is_read(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    names = {f"many/file-{number:04d}": b"%d" % number for number in range(900)}
    files: dict[str, bytes | str] = {
        **disks.SYSTEM, **names,
        "big": random.Random(1).randbytes(5 * disks.MIB + 77),
        "empty": b"",
        "etc/link": "/boot/../etc/os-release",
        "etc/loop": "loop",
        "etc/long": "/" + "x/../" * 40 + "usr/bin/perl",
    }  # fmt: skip
    files = {name: content for name, content in files.items() if name != "usr/bin/perl"}
    files["usr/bin/perl"] = b"here"
    # Each part of the long link must exist.
    files["x/y"] = b""
    path = disks.ext(tmp_path / "fs", disks.tree(tmp_path / "tree", files), *options, kind=kind)
    sparse = tmp_path / "tree" / "sparse"
    assert not sparse.exists()
    found = Ext4(Window(Raw(path), 0, path.stat().st_size))
    for name, content in files.items():
        if isinstance(content, bytes):
            assert found.read(name, 1 << 30) == content, name
    assert found.names("/many") == sorted(name.partition("/")[2] for name in names)
    assert found.read("/etc/link") == files["usr/lib/os-release"]
    assert found.read("/etc/long") == b"here"
    assert found.find("/etc/loop") is None
    assert found.find("/big/nothing") is None
    assert found.find("/nothing") is None
    assert found.names("/nothing") == []


def test_holes_in_a_file_are_zeros(tmp_path: Path) -> None:
    folder = disks.tree(tmp_path / "tree", {"x": b""})
    with (folder / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(3 * disks.MIB)
        file.write(b"middle")
        file.truncate(7 * disks.MIB)
    for kind in ("ext4", "ext2"):
        path = disks.ext(tmp_path / kind, folder, kind=kind)
        found = Ext4(Raw(path))
        assert found.read("/sparse", 1 << 30) == (folder / "sparse").read_bytes()


def test_gpt_and_its_backup(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "disk.raw"
    copy.write_bytes((made / "disk.raw").read_bytes())
    found = partitions.table(Raw(copy))
    assert [one.number for one in found] == [1, 2, 3]
    assert found[2].uuid == disks.GUID
    assert found[2].kind == disks.ROOT_X86
    assert found[2].root_argument == f"PARTUUID={disks.GUID}"
    with copy.open("r+b") as file:
        file.seek(520)
        file.write(b"\xff")
    assert partitions.table(Raw(copy)) == found


def test_mbr_and_no_table_at_all(made: Path, tmp_path: Path) -> None:
    root = made / "root.ext4"
    disk = tmp_path / "mbr.raw"
    head = bytearray(2048 * 512)
    struct.pack_into("<I", head, 440, 0xCAFE1234)
    struct.pack_into("<B3xB3xII", head, 446, 0x80, 0x83, 2048, root.stat().st_size // 512)
    head[510:512] = b"\x55\xaa"
    disk.write_bytes(bytes(head) + root.read_bytes())
    (one,) = partitions.table(Raw(disk))
    assert (one.number, one.start, one.root_argument) == (1, 1 << 20, "PARTUUID=cafe1234-01")
    (whole,) = partitions.table(Raw(root))
    assert (whole.number, whole.size, whole.root_argument) == (0, root.stat().st_size, "/dev/vda")


def test_the_kernel_comes_out_of_a_disk_with_what_is_to_be_known(
    made: Path, tmp_path: Path
) -> None:
    facts = extract.extract(made / "disk.qcow2", tmp_path, "k", "i")
    assert (tmp_path / "k").read_bytes() == disks.KERNEL
    assert (tmp_path / "i").read_bytes() == disks.INITRD
    assert facts["kernelVersion"] == "6.12.118"
    assert facts["kernelCommandLine"].startswith(f"root=PARTUUID={disks.GUID} rw ")
    assert (facts["suite"], facts["sshPort"], facts["foreign"]) == ("trixie", 22, True)
    assert (facts["agent"], facts["injectsAgent"]) == (True, True)
    assert "hostKeyFile" not in facts


def test_a_boot_partition_of_its_own_and_an_older_systemd(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        name: content
        for name, content in disks.SYSTEM.items()
        if not name.startswith("boot/") and "libsystemd" not in name
    }
    files["usr/lib/systemd/libsystemd-shared-252.so"] = b""
    root = disks.ext(tmp_path / "root", disks.tree(tmp_path / "tree", files))
    names = {"vmlinuz-6.1.0-9": b"a", "initrd.img-6.1.0-9": b"b"}
    boot = disks.ext(tmp_path / "boot", disks.tree(tmp_path / "b", names), size=8 * disks.MIB)
    raw = disks.gpt(tmp_path / "raw", [(disks.LINUX, boot), (disks.LINUX, root)])
    found = disks.qcow2(tmp_path / "disk.qcow2", raw)
    facts = extract.extract(found, tmp_path, "k", "i")
    assert (tmp_path / "k").read_bytes() == b"a"
    assert facts["kernelCommandLine"].startswith(f"root=PARTUUID={disks.GUID} ")
    assert (facts["agent"], facts["injectsAgent"]) == (False, False)


def test_the_published_images_own_sshd(tmp_path: Path) -> None:
    unit = b"[Service]\nUser=dev\nExecStart=/usr/sbin/sshd -D -f /home/dev/.ssh/sshd_config\n"
    config = b"Port 2222\nHostKey /home/dev/.ssh/ssh_host_rsa_key\n"
    config += b"HostKey /home/dev/.ssh/ssh_host_ed25519_key\n"
    disk = disks.system(
        tmp_path,
        files={
            **disks.SYSTEM,
            "etc/systemd/system/dev-sshd.service": unit,
            "home/dev/.ssh/sshd_config": config,
            "usr/bin/cloud-init": b"",
        },
    )
    facts = extract.extract(disk, tmp_path, "k", "i")
    assert facts["sshPort"] == 2222
    assert facts["hostKeyFile"] == "/home/dev/.ssh/ssh_host_ed25519_key"
    assert facts["cloudInit"] is True


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"etc/passwd": b"root:x:0:0::/root:/bin/sh\ndevil:x:1::/:/bin/sh\n"}, "user dev"),
        ({"usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so": "gone"}, "host key"),
    ],
)
def test_a_system_that_nobody_could_log_into(
    tmp_path: Path, change: dict[str, bytes | str], why: str
) -> None:
    files = {**disks.SYSTEM, **change}
    files = {name: content for name, content in files.items() if content != "gone"}
    with pytest.raises(ImageInvalid, match=why):
        extract.extract(disks.system(tmp_path, files=files), tmp_path, "k", "i")
    # cloud-init makes a user and takes a key.
    disk = disks.system(tmp_path / "two", files={**files, "usr/bin/cloud-init": b""})
    assert extract.extract(disk, tmp_path, "k2", "i2")["cloudInit"] is True


@pytest.mark.parametrize(
    ("offset", "magic", "name"),
    [(0, b"XFSB", "XFS"), (0x10040, b"_BHRfS_M", "btrfs"), (0, b"LUKS\xba\xbe", "LUKS")],
)
def test_other_file_systems_are_named(tmp_path: Path, offset: int, magic: bytes, name: str) -> None:
    volume = bytearray(disks.MIB)
    volume[offset : offset + len(magic)] = magic
    (tmp_path / "fs").write_bytes(volume)
    raw = disks.gpt(tmp_path / "raw", [(disks.ROOT_X86, tmp_path / "fs")])
    disk = disks.qcow2(tmp_path / "disk.qcow2", raw)
    with pytest.raises(ImageInvalid, match=name) as caught:
        extract.extract(disk, tmp_path, "k", "i")
    assert "layers of their own" in str(caught.value.hint)


def test_a_disk_without_a_system_and_a_system_without_a_kernel(tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(bytes(disks.MIB))
    disk = disks.qcow2(tmp_path / "empty.qcow2", tmp_path / "nothing")
    with pytest.raises(ImageInvalid, match="no Linux system"):
        extract.extract(disk, tmp_path, "k", "i")
    files = {name: c for name, c in disks.SYSTEM.items() if not name.startswith("boot/")}
    disk = disks.system(tmp_path / "two", files=files)
    with pytest.raises(ImageInvalid, match="no kernel"):
        extract.extract(disk, tmp_path, "k", "i")


def test_a_kernel_of_another_architecture(tmp_path: Path) -> None:
    files = {**disks.SYSTEM, "boot/vmlinuz-6.12.118": bytes(0x38) + b"ARM\x64" + bytes(2000)}
    disk = disks.system(tmp_path, files=files)
    with pytest.raises(ImageInvalid, match="aarch64"):
        extract.extract(disk, tmp_path, "k", "i")


def test_damage_ends_in_an_error_and_never_in_a_loop(made: Path, tmp_path: Path) -> None:
    whole = (made / "disk.qcow2").read_bytes()
    chance = random.Random(20261126)
    ends = {"fine": 0, "error": 0}
    for number in range(60):
        data = bytearray(whole)
        # Where the structures are: the header, tables, superblock, inodes, folders.
        for _ in range(chance.randint(1, 40)):
            data[chance.randrange(len(data) if number % 2 else 1 << 18)] = chance.randrange(256)
        if number % 10 == 0:
            del data[chance.randrange(len(data)) :]
        path = tmp_path / "damaged.qcow2"
        path.write_bytes(data)
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            # In this process: its limits must not be what ends it.
            extract._run(path, folder, "k", "i")
            ends["fine"] += 1
        except SandboxError:
            ends["error"] += 1
        except (ArithmeticError, LookupError, ValueError, struct.error, MemoryError):
            ends["error"] += 1  # what `main` turns into "the disk is damaged"
    assert ends["fine"], ends
    assert ends["error"], ends
