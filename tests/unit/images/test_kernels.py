"""Which kernel of many."""

from __future__ import annotations

import subprocess

import pytest

from sandbox_rpc.images import kernels


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["vmlinuz-6.12.9", "initrd.img-6.12.9", "vmlinuz-6.12.117", "initrd.img-6.12.117"],
         "vmlinuz-6.12.117"),
        (["vmlinuz-6.13.0", "vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64"],
         "vmlinuz-6.1.0-9-amd64"),
        (["vmlinuz-6.1.0~rc1", "initrd.img-6.1.0~rc1", "vmlinuz-6.1.0", "initrd.img-6.1.0"],
         "vmlinuz-6.1.0"),
        (["vmlinuz-6.6.1-rescue", "initramfs-6.6.1-rescue.img", "vmlinuz-6.5", "initramfs-6.5.img"],
         "vmlinuz-6.5"),
        (["vmlinuz-6.9.dpkg-new", "initrd.img-6.9.dpkg-new"], None),
        (["vmlinuz", "initrd.img", "grub"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_newest_with_an_initrd(names: list[str], expected: str | None) -> None:
    found = kernels.choose(names)
    assert (found.name if found else None) == expected


def test_the_distributions_own_choice_goes_first() -> None:
    names = ["vmlinuz-6.1", "initrd.img-6.1", "vmlinuz-6.2", "initrd.img-6.2", "vmlinuz-6.3"]
    found = kernels.choose(names, ["vmlinuz-6.1"])
    assert found is not None
    assert (found.name, found.initrd, found.version) == ("vmlinuz-6.1", "initrd.img-6.1", "6.1")
    # Not one without an initrd.
    found = kernels.choose(names, ["vmlinuz-6.3"])
    assert found is not None
    assert found.name == "vmlinuz-6.2"


def test_the_order_is_dpkgs() -> None:
    versions = ["6.1", "6.1~rc1", "6.10", "6.9", "6.1.0-9", "6.1.0-10", "6.1+b1", "6.1a"]
    for a in versions:
        for b in versions:
            done = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False)
            assert (kernels.order(a) < kernels.order(b)) == (done.returncode == 0), (a, b)
