"""What a host without libslirp is told."""

from __future__ import annotations

import pytest

from sandbox_rpc.network import libslirp
from sandbox_rpc.network.support import remedy


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ({"ID": "debian"}, "apt-get install libslirp0"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install libslirp0"),
        ({"ID": "fedora"}, "dnf install libslirp"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install libslirp"),
        ({"ID": "arch"}, "pacman -S libslirp"),
    ],
)
def test_the_hosts_own_package(release: dict[str, str], line: str) -> None:
    assert remedy(release) == f"Install libslirp 4.7 or newer: {line}"


def test_an_unknown_host_is_told_all() -> None:
    text = remedy({"ID": "gentoo"})
    assert libslirp.LIBRARY in text
    for line in ("apt-get install libslirp0", "dnf install libslirp", "pacman -S libslirp"):
        assert line in text


def test_this_host_is_told_something() -> None:
    assert remedy().startswith("Install libslirp")
