"""What the installed QEMU and this host's processor can do, probed once and remembered."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from attrs import asdict, frozen

from sandbox_rpc.host import files
from sandbox_rpc.protocol.errors import KvmUnavailable, QemuMissing
from sandbox_rpc.qemu.machine import Accelerator

OLDEST = (7, 2)
BOARDS = {"x86_64": "pc", "aarch64": "virt"}
PROBE_LIMIT_S = 20


@frozen
class Qemu:
    """One QEMU binary."""

    path: str
    version: tuple[int, int, int]
    machine_type: str
    """The versioned name behind the board's alias: `pc-i440fx-7.2`."""
    arch: str
    build: str
    """Tells this very program from an older or newer one: what it says of itself, size, time."""

    @property
    def seals_memory(self) -> bool:
        """Whether it can map a file privately with a descriptor that cannot write."""
        return self.version >= (8, 2, 0)


@frozen
class Kvm:
    """Whether this host runs a guest's instructions itself."""

    usable: bool
    """The device opens and the processor has virtualization, so a stock kernel runs."""
    opens: bool
    """/dev/kvm can be opened."""
    detail: str
    """Why not, or what was found."""
    hint: str | None = None
    """What to do about it."""


def host_arch() -> str:
    """`x86_64` or `aarch64`; others are named as the kernel names them."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def find_qemu(binary: str, cache: Path) -> Qemu:
    """The QEMU to use; `binary` is the setting, empty for the one on PATH.

    What it can do is kept in `cache` by path, size and time of the binary: asking it costs 0.1 s.

    Raises:
        QemuMissing: there is none, it does not run, it is older than 7.2 or lacks the board.
    """
    arch = host_arch()
    wanted = binary or f"qemu-system-{arch}"
    path = shutil.which(wanted)
    if path is None and not binary:
        path = shutil.which("qemu-kvm") or shutil.which("qemu-kvm", path="/usr/libexec")
    if path is None:
        raise QemuMissing(f"QEMU is not installed: there is no program {wanted}.")
    path = os.path.realpath(path)
    stat = os.stat(path)
    key = f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{arch}"
    if (known := _recall(cache, key)) is not None:
        return known
    qemu = _probe(path, arch, f"{stat.st_size} bytes, {stat.st_mtime_ns}")
    cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(cache, json.dumps({key: asdict(qemu)}))
    return qemu


def _recall(cache: Path, key: str) -> Qemu | None:
    try:
        value = json.loads(cache.read_bytes())[key]
        major, minor, micro = value.pop("version")
        return Qemu(version=(int(major), int(minor), int(micro)), **value)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _probe(path: str, arch: str, file: str) -> Qemu:
    said = _ask(path, "--version")
    version = parse_version(said)
    if version is None:
        raise QemuMissing(f"{path} does not look like QEMU.")
    if version[:2] < OLDEST:
        found = ".".join(map(str, version))
        raise QemuMissing(f"{path} is QEMU {found}; 7.2 is the oldest usable.")
    board = versioned_board(_ask(path, "-machine", "help"), BOARDS.get(arch, "virt"))
    if board is None:
        raise QemuMissing(f"{path} has no machine type {BOARDS.get(arch, 'virt')} for {arch}.")
    return Qemu(path, version, board, arch, f"{said.partition(chr(10))[0]}, {file}")


def _ask(path: str, *options: str) -> str:
    try:
        return subprocess.run(
            [path, *options],
            stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PROBE_LIMIT_S,
        ).stdout.decode(errors="replace")  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None) or b""
        said = stderr.decode(errors="replace").strip() or str(error)
        raise QemuMissing(f"{path} does not run: {said}") from error


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in `QEMU emulator version 7.2.22 (Debian …)`."""
    match = re.search(r"\bversion (\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def versioned_board(help_text: str, alias: str) -> str | None:
    """What an alias such as `pc` stands for in the output of `-machine help`."""
    match = re.search(rf"^{re.escape(alias)}\s.*\(alias of ([^)\s]+)\)", help_text, re.MULTILINE)
    return match[1] if match else None


def probe_kvm(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> Kvm:
    """Whether KVM runs a stock kernel here.

    An open device is not enough: on hosts whose processor hides vmx and svm (some nested and
    container hosts) it makes machines that hang after their firmware.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Kvm(
            False, False, f"{device} does not exist",
            "Load the module (modprobe kvm_intel or kvm_amd), switch virtualization on in the "
            "firmware, or, inside a virtual machine, allow nested virtualization.",
        )  # fmt: skip
    except PermissionError:
        return Kvm(
            False, False, f"no right to open {device}",
            "Join the group: sudo usermod -aG kvm $USER, then log in again.",
        )  # fmt: skip
    except OSError as error:
        return Kvm(
            False, False, f"{device} cannot be opened: {error.strerror}",
            "Load the module: modprobe kvm_intel or kvm_amd.",
        )  # fmt: skip
    if host_arch() != "x86_64":
        return Kvm(True, True, f"{device} opens")
    flags = _cpu_flags(cpuinfo)
    if flag := next((flag for flag in ("vmx", "svm") if flag in flags), None):
        return Kvm(True, True, f"{device} opens, the processor has {flag}")
    return Kvm(
        False, True, f"{device} opens, but the processor shows neither vmx nor svm: guests hang",
        "This host is a virtual machine without nested virtualization; allow it on the outer host.",
    )  # fmt: skip


def host_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What a guest with `-cpu host` sees of this host: the processor, its microcode, the kernel."""
    try:
        first = cpuinfo.read_text().partition("\n\n")[0]
    except OSError:
        first = ""
    # Neither the frequency of the moment nor which processor it is.
    changing = ("processor", "cpu MHz", "apicid", "initial apicid", "core id", "physical id")
    lines = [line for line in first.splitlines() if line.partition(":")[0].strip() not in changing]
    return "\n".join([os.uname().release, *lines])


def _cpu_flags(cpuinfo: Path) -> set[str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def choose(wanted: str, kvm: Kvm) -> tuple[Accelerator, str | None]:
    """The accelerator for the setting `auto | kvm | tcg`, and a warning for the user.

    Raises:
        KvmUnavailable: `kvm` is set and the device does not open.
    """
    match wanted:
        case "tcg":
            return Accelerator.TCG, None
        case "kvm" if not kvm.opens:
            raise KvmUnavailable(f"KVM cannot be used: {kvm.detail}.", hint=kvm.hint)
        case "kvm":
            return Accelerator.KVM, None if kvm.usable else f"KVM as asked, although {kvm.detail}."
        case _ if kvm.usable:
            return Accelerator.KVM, None
        case _:
            return (
                Accelerator.TCG,
                f"Emulated (TCG), about ten times slower than KVM: {kvm.detail}. {kvm.hint}",
            )
