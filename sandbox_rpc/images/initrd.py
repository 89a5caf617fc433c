"""An initrd of five megabytes: busybox, the modules this machine needs, a script of ten lines.

initramfs-tools makes one for any hardware; unpacking it and running its udev takes a guest longer
than all the rest of the kernel's start.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sandbox_rpc.host import process
from sandbox_rpc.protocol.errors import BuildFailed

INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox modprobe -qa {early} 2>/dev/null &
/bin/busybox modprobe -qa {root} 2>/dev/null
tries=0
until /bin/busybox mount -t ext4 -o rw,relatime /dev/vda /new 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 1000 ] || {{ echo "sandbox: no root file system on /dev/vda"; exit 1; }}
    /bin/busybox usleep 10000
done
wait
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
"""


def build(tree: Path, kernel: str, root: Sequence[str], early: Sequence[str]) -> bytes:
    """The archive, uncompressed (QEMU reads a file faster than a guest unpacks one); deterministic.

    `root` are the modules that the root file system needs, `early` are loaded at the same time.

    Raises:
        BuildFailed: the tree lacks busybox, or its list of modules makes no sense.
        ToolMissing: modules are compressed by zstd and zstd is not installed.
    """
    busybox = tree / "usr/bin/busybox"
    if not busybox.is_file():
        raise BuildFailed("The tree has no static busybox for the initrd.")
    source = tree / "usr/lib/modules" / kernel
    needs = (source / "modules.dep").read_text()
    soft = (source / "modules.softdep").read_text()
    target = f"lib/modules/{kernel}"
    folders = ("bin", "dev", "lib", "lib/modules", target, "new")
    entries: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in folders]
    paths = load_order(needs, soft, (*root, *early))
    init = INIT.format(
        root=" ".join(_module_name(p) for p in load_order(needs, soft, root)),
        early=" ".join(early),
    )
    entries += [
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("init", 0o100755, init.encode()),
        (f"{target}/modules.dep", 0o100644, _flat(needs, paths).encode()),
    ]
    for path in paths:
        entries.append((f"{target}/{_plain_name(path)}", 0o100644, _content(source / path)))
    return cpio(entries)


def _flat(dependencies: str, paths: Sequence[str]) -> str:
    """modules.dep for the same modules without folders and compression."""
    lines = []
    for line in dependencies.splitlines():
        path, _, rest = line.partition(":")
        if path in paths:
            lines.append(
                f"{_plain_name(path)}:{''.join(f' {_plain_name(n)}' for n in rest.split())}"
            )
    return "".join(f"{line}\n" for line in lines)


def load_order(dependencies: str, soft: str, wanted: Iterable[str]) -> list[str]:
    """Paths of modules so that each comes after what it needs, from the kernel's own lists.

    A wanted module that this kernel has built in is left out.

    Raises:
        BuildFailed: `dependencies` contradict themselves.
    """
    needs: dict[str, list[str]] = {}
    for line in dependencies.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {_module_name(path): path for path in needs}
    before: Mapping[str, list[str]] = dict(_soft_dependencies(soft))
    order: list[str] = []

    def add(path: str, above: tuple[str, ...]) -> None:
        if path in order:
            return
        if path in above:
            raise BuildFailed(f"The kernel's modules need each other in a circle: {path}.")
        softly = [by_name[n] for n in before.get(_module_name(path), ()) if n in by_name]
        for need in (*softly, *needs.get(path, ())):
            add(need, (*above, path))
        order.append(path)

    for name in wanted:
        found = by_name.get(name.replace("-", "_"))
        if found is not None:
            add(found, ())
    return order


def _soft_dependencies(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        if found := re.match(r"softdep (\S+) pre: ([^:]+?)(?: post:.*)?$", line):
            yield found[1].replace("-", "_"), [n.replace("-", "_") for n in found[2].split()]


def _plain_name(path: str) -> str:
    return re.sub(r"\.ko(\.\w+)?$", ".ko", Path(path).name)


def _module_name(path: str) -> str:
    return _plain_name(path).removesuffix(".ko").replace("-", "_")


def _content(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        argv = [process.find("zstd"), "-dcq", str(path)]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout
    return path.read_bytes()


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A `newc` archive of (name, mode, content), root's, without times."""
    out = bytearray()

    def pad() -> None:
        out.extend(bytes(-len(out) % 4))

    trailer = ("TRAILER!!!", 0, b"")
    for number, (name, mode, content) in enumerate((*entries, trailer), start=1):
        path = name.encode() + b"\0"
        links = 2 if mode & 0o040000 else 1
        fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        pad()
        out += content
        pad()
    return bytes(out)
