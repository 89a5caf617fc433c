"""Which kernel of a file system a machine is to boot, and its initrd. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

_KERNEL = re.compile(r"(?:vmlinuz|vmlinux|linux|Image|kernel)-(?P<version>[0-9].*)")
_SKIPPED = re.compile(r"\.(dpkg-\w+|old|bak|efi|signed|hmac|sig)$|rescue|[.~]$")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-linux-{}.img")


@frozen
class Kernel:
    """A kernel and the initrd made for it, as names in one folder."""

    name: str
    initrd: str
    version: str


def order(version: str) -> list[tuple[int, ...]]:
    """A key by which versions sort as dpkg sorts them: numbers as numbers, `~` before the end."""
    parts: list[tuple[int, ...]] = []
    for digits, other in re.findall(r"(\d+)|(\D)", version):
        # What is not a digit: ~ first, then the end, then letters, then the rest.
        if digits:
            parts.append((1, int(digits)))
        elif other == "~":
            parts.append((-1,))
        else:
            parts.append((2, ord(other) + (0 if other.isalpha() else 256)))
    return [*parts, (0,)]


def choose(names: Iterable[str], preferred: Sequence[str] = ()) -> Kernel | None:
    """The newest kernel that has an initrd; one of the `preferred` names where they do.

    What a distribution's own link names (`/vmlinuz`) is its choice, so it goes first.
    """
    present = set(names)
    found = []
    for name in present:
        match = _KERNEL.fullmatch(name)
        if match is None or _SKIPPED.search(name):
            continue
        version = match["version"]
        initrd = next((n for n in (i.format(version) for i in _INITRDS) if n in present), None)
        if initrd is not None:
            found.append(Kernel(name, initrd, version))
    for name in preferred:
        for kernel in found:
            if kernel.name == name:
                return kernel
    return max(found, key=lambda kernel: order(kernel.version), default=None)
