"""What is in an image, as lists and archives."""

from __future__ import annotations

import io
import tarfile

import pytest

from sandbox_rpc.images import recipe
from sandbox_rpc.images.mirror import Mirror


def entries(variant: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(recipe.overlay(variant, "x86_64"))) as tar:
        return {entry.name: entry for entry in tar}


def content(variant: str, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(recipe.overlay(variant, "x86_64"))) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


def test_the_command_line_is_short_enough_and_starts_the_right_disk() -> None:
    for variant in (recipe.TRIM, recipe.STOCK):
        words = recipe.command_line(variant, "x86_64").split()
        assert {"root=/dev/vda", "rw", "console=ttyS0", "panic=-1"} <= set(words)
        assert len(recipe.command_line(variant, "x86_64")) <= 1500
    assert "console=ttyAMA0" in recipe.command_line(recipe.TRIM, "aarch64").split()


def test_the_kernel_keeps_its_guard() -> None:
    line = recipe.command_line(recipe.TRIM, "x86_64")
    for weakening in ("mitigations", "nokaslr", "apparmor=0", "nopti", "selinux=0"):
        assert weakening not in line


def test_mmdebstrap_takes_the_mirror_it_is_given() -> None:
    mirror = Mirror("http://mirror.example.org/debian/", None, ['Acquire::Check-Date "false";'])
    argv = recipe.mmdebstrap("x86_64", mirror, "/somewhere/tree")
    assert argv[-4:] == [
        recipe.SUITE,
        "/somewhere/tree",
        f"deb http://mirror.example.org/debian/ {recipe.SUITE} main",
        f"deb http://mirror.example.org/debian/ {recipe.SUITE}-updates main",
    ]
    assert '--aptopt=Acquire::Check-Date "false";' in argv
    assert "--format=directory" in argv


def test_mmdebstrap_without_a_mirror_chooses_itself() -> None:
    argv = recipe.mmdebstrap("x86_64", None, "-")
    assert argv[-2:] == [recipe.SUITE, "-"]
    assert "--format=tar" in argv


@pytest.mark.parametrize(("arch", "kernel"), recipe.KERNELS.items())
def test_the_kernel_is_never_the_cloud_one_which_has_no_9p(arch: str, kernel: str) -> None:
    include = next(a for a in recipe.mmdebstrap(arch, None, "-") if a.startswith("--include="))
    assert kernel in include.split("=")[1].split(",")
    assert "cloud" not in include


def test_overlays_have_no_folders_and_the_modes_that_matter() -> None:
    for variant in ("base", "trimmed", "plain"):
        for name, entry in entries(variant).items():
            assert entry.isfile() or entry.issym(), name
            assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
            assert not name.startswith("/")
    base = entries("base")
    assert base["usr/local/sbin/sandbox-agent"].mode == 0o755
    assert base["etc/sudoers.d/dev"].mode == 0o440
    assert base["etc/gitconfig"].mode == 0o644


def test_overlays_are_the_same_each_time() -> None:
    assert recipe.overlay("trimmed", "x86_64") == recipe.overlay("trimmed", "x86_64")


def test_sshd_reads_one_key_and_takes_no_passwords() -> None:
    lines = content("base", "etc/ssh/sshd_config.d/sandbox.conf").splitlines()
    assert "HostKey /etc/ssh/ssh_host_ed25519_key" in lines
    for line in ("PasswordAuthentication no", "PermitRootLogin no", "PerSourcePenalties no"):
        assert line in lines


def test_ssh_and_console_wait_for_the_identity() -> None:
    """Connections by a program of ours, the console by its order; neither holds up a template."""
    program = entries("trimmed")["usr/local/sbin/sandbox-sshd"]
    assert program.mode == 0o755
    marker = "/run/sandbox/identified"
    assert marker in content("trimmed", "usr/local/sbin/sandbox-sshd")
    assert marker in content("base", "usr/local/sbin/sandbox-agent")
    getty = content("trimmed", "etc/systemd/system/serial-getty@.service").splitlines()
    assert "After=dev-%i.device sandbox-agent.service" in getty
    assert not [line for line in getty if line.startswith("Before=") and "getty.target" in line]
    assert "Type=notify" in content("base", "etc/systemd/system/sandbox-agent.service")


def test_what_a_full_debian_needs_is_not_masked() -> None:
    masked = {n for n, e in entries("trimmed").items() if e.linkname == "/dev/null"}
    for unit in ("dbus.service", "systemd-logind.service", "systemd-journald.service"):
        assert f"etc/systemd/system/{unit}" not in masked
    assert "etc/systemd/system/apt-daily.timer" in masked
    assert not {n for n, e in entries("plain").items() if e.issym()}


def test_the_console_follows_the_architecture() -> None:
    names = set(entries("trimmed"))
    assert "etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service" in names
    arm = recipe.overlay("base", "aarch64")
    with tarfile.open(fileobj=io.BytesIO(arm)) as tar:
        assert "etc/systemd/system/serial-getty@ttyAMA0.service.d/autologin.conf" in tar.getnames()
