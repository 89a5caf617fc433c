"""What it costs a host to have no usable libslirp, and how to get one."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from sandbox_rpc.network.libslirp import LIBRARY, OLDEST

COST = (
    "the guest's network is QEMU's own, in QEMU's process: in `open` it reaches this host's "
    "loopback, its addresses and its private networks, and `allow.*` has no effect"
)
"""As the rest of a sentence."""
INSTALL: Mapping[str, str] = {
    "debian": "apt-get install libslirp0",
    "fedora": "dnf install libslirp",
    "arch": "pacman -S libslirp",
}
"""By the names in os-release; those of Ubuntu and others are in its ID_LIKE."""


def remedy(release: Mapping[str, str] | None = None) -> str:
    """How to get the library on this host, or on the one of an os-release."""
    if release is None:
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {}
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    oldest = ".".join(map(str, OLDEST))
    for name in names:
        if name in INSTALL:
            return f"Install libslirp {oldest} or newer: {INSTALL[name]}"
    every = ", ".join(f"{name.capitalize()}: {line}" for name, line in INSTALL.items())
    return f"Install libslirp {oldest} or newer, the library {LIBRARY} ({every})."
