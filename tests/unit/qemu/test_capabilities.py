"""What QEMU and KVM can do, from recorded answers and made-up hosts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_rpc.protocol.errors import KvmUnavailable, QemuMissing
from sandbox_rpc.qemu import capabilities
from sandbox_rpc.qemu.capabilities import (
    Kvm,
    choose,
    find_qemu,
    host_processor,
    parse_version,
    probe_kvm,
    versioned_board,
)
from sandbox_rpc.qemu.machine import Accelerator

HELP = """\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
"""


def test_versions() -> None:
    """Distributions decorate the version line in their own ways."""
    assert parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)") == (7, 2, 22)
    assert parse_version("QEMU emulator version 10.0 (qemu-10.0-1.fc43)") == (10, 0, 0)
    assert parse_version("GNU coreutils 9.1") is None


def test_board_is_the_versioned_one() -> None:
    """The alias moves with QEMU, a saved machine must not."""
    assert versioned_board(HELP, "pc") == "pc-i440fx-7.2"
    assert versioned_board(HELP, "virt") is None


def fake_qemu(path: Path, version: str) -> Path:
    """A program that answers like QEMU."""
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && echo "QEMU emulator version {version}" && exit\n'
        f"cat <<'END'\n{HELP}\nvirt  ARM (alias of virt-7.2)\nEND\n"
    )
    path.chmod(0o755)
    return path


def test_finds_a_named_binary_and_remembers_it(tmp_path: Path) -> None:
    """The second time the binary is not asked again, unless it changed."""
    binary = fake_qemu(tmp_path / "qemu", "8.2.1")
    cache = tmp_path / "probes" / "qemu.json"
    found = find_qemu(str(binary), cache)
    assert (found.version, found.path) == ((8, 2, 1), str(binary))
    stat = binary.stat()
    binary.write_text("#!/bin/sh\nexit 1\n".ljust(stat.st_size))
    os.utime(binary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_qemu(str(binary), cache) == found
    fake_qemu(binary, "9.0.0")
    assert find_qemu(str(binary), cache).version == (9, 0, 0)


def test_a_build_is_told_from_another_of_the_same_version(tmp_path: Path) -> None:
    """By what it says, and by the file."""
    binary = tmp_path / "qemu"
    builds: list[capabilities.Qemu] = []
    for said, when in (("7.2.1 (Debian 1)", 1), ("7.2.1 (Debian 2)", 1), ("7.2.1 (Debian 2)", 2)):
        os.utime(fake_qemu(binary, said), (when, when))
        builds.append(find_qemu(str(binary), tmp_path / f"cache{len(builds)}.json"))
    assert len({one.build for one in builds}) == 3
    assert {one.version for one in builds} == {(7, 2, 1)}


@pytest.mark.parametrize(
    ("version", "seals"), [("7.2.22", False), ("8.1.5", False), ("8.2.0", True), ("10.0.2", True)]
)
def test_who_maps_memory_without_the_right_to_write(
    tmp_path: Path, version: str, seals: bool
) -> None:
    found = find_qemu(str(fake_qemu(tmp_path / "qemu", version)), tmp_path / "cache.json")
    assert found.seals_memory is seals


def test_the_processor_is_what_a_guest_sees_of_it(tmp_path: Path) -> None:
    """Flags and microcode count, the frequency of the moment and the number of the core do not."""
    cpuinfo = tmp_path / "cpuinfo"

    def seen(text: str) -> str:
        cpuinfo.write_text(text.replace(":", "\t: "))
        return host_processor(cpuinfo)

    base = "processor:0\nmodel:1\nmicrocode:0x1\ncpu MHz:800\nflags:fpu vmx\n\nprocessor:1\n"
    first = seen(base)
    assert os.uname().release in first
    assert seen(base.replace("MHz:800", "MHz:3200").replace("processor:0", "processor:7")) == first
    for old, new in (("0x1", "0x2"), ("fpu vmx", "fpu"), ("model:1", "model:2")):
        assert seen(base.replace(old, new)) != first
    assert host_processor(tmp_path / "none") == os.uname().release


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n", "6.2.0"),
        ("#!/bin/sh\necho 'hello'\n", "does not look like QEMU"),
        ("#!/bin/sh\necho broken >&2; exit 3\n", "broken"),
    ],
)
def test_unusable_binaries(tmp_path: Path, script: str, said: str) -> None:
    """Old, wrong and broken programs are named for what they are."""
    binary = tmp_path / "qemu"
    binary.write_text(script)
    binary.chmod(0o755)
    with pytest.raises(QemuMissing, match=said):
        find_qemu(str(binary), tmp_path / "cache.json")


def test_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH is an error with the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(QemuMissing) as caught:
        find_qemu("", tmp_path / "cache.json")
    assert "apt-get install" in (caught.value.hint or "")


def test_kvm_needs_device_and_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open device on a processor without vmx and svm makes guests that hang: not usable."""
    monkeypatch.setattr(capabilities, "host_arch", lambda: "x86_64")
    device, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    device.touch()
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu vme svm_lock\n")
    seen = probe_kvm(device, cpuinfo)
    assert (seen.usable, seen.opens) == (False, True)
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu vmx sse\n")
    assert probe_kvm(device, cpuinfo).usable
    missing = probe_kvm(tmp_path / "nothing", cpuinfo)
    assert not missing.opens
    assert "modprobe" in (missing.hint or "")


def test_choice_of_accelerator() -> None:
    """`auto` takes KVM only where it works; what is asked for by name is obeyed or refused."""
    good = Kvm(True, True, "fine")
    hangs = Kvm(False, True, "no vmx", "do this")
    absent = Kvm(False, False, "no device", "do that")
    assert choose("auto", good) == (Accelerator.KVM, None)
    accelerator, warning = choose("auto", hangs)
    assert accelerator is Accelerator.TCG
    assert warning is not None
    assert "no vmx" in warning
    assert "do this" in warning
    assert choose("tcg", good) == (Accelerator.TCG, None)
    accelerator, warning = choose("kvm", hangs)
    assert accelerator is Accelerator.KVM
    assert warning is not None
    with pytest.raises(KvmUnavailable) as caught:
        choose("kvm", absent)
    assert caught.value.hint == "do that"
