"""What this host can do for the box: found by doing it, with the real programs and options."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import attrs

from sandbox_rpc.protocol.errors import ToolMissing
from sandbox_rpc.qemu import filter as setuid_filter
from sandbox_rpc.qemu.box import SECCOMP, Account, Box, Finding, Probe, Tools, Variant
from sandbox_rpc.qemu.view import Mount, View
from sandbox_rpc.qemu.wrap import wrap

LIMIT_S = 20

SWITCHES = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)
"""Kernel settings that decide whether an ordinary user may make a user namespace."""

NOBODY = Account(65534, 65534)
"""Whom the probe of the OWNER variant becomes; any user but root would do."""


def probe(qemu: str) -> Probe:
    """Try every layer for this QEMU binary (real path): about 0.2 s, so keep the answer.

    It may be kept as long as `fingerprint` stays the same.
    """
    tools = Tools(_find("bwrap"), _find("setpriv"), _find("unshare"))
    programs = [one for one in (qemu, tools.setpriv, tools.unshare) if one]
    base = Probe(
        tools=tools,
        user=Finding(False, "bubblewrap is not installed"),
        owner=Finding(False, "bubblewrap is not installed"),
        filter=_probe_filter(),
        seccomp=_probe_seccomp(qemu),
        system=needs(programs),
        kvm_gid=_kvm_gid(),
    )
    if not tools.bwrap:
        return base
    own = Account(os.geteuid(), os.getegid())
    user = _first_that_works(qemu, base, Variant.USER, own)
    if own.uid != 0:
        owner = Finding(False, "only root opens another user's folder as that user")
    elif not (tools.setpriv and tools.unshare):
        owner = Finding(False, "util-linux (setpriv, unshare) is not installed")
    else:
        # Tried as the first variant came out: what /proc allows is the same for both.
        owner = _try(qemu, user, Variant.OWNER, NOBODY)
    return attrs.evolve(user, owner=owner)


def fingerprint(qemu: str) -> str:
    """Changes whenever `probe` could come to another answer; costs less than a millisecond."""
    digest = hashlib.sha256()
    for path in (qemu, _find("bwrap"), _find("setpriv"), _find("unshare")):
        with suppress(OSError):
            stat = os.stat(path)
            digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    for switch in (*SWITCHES, BOOT_ID, LABEL, USERS):
        digest.update(f"{switch}={_read(switch)}\n".encode())
    # An editor from a snap or a service with RestrictNamespaces= can do less than the user's shell.
    limits = re.findall(r"^(?:NoNewPrivs|Seccomp_filters|CapBnd):.*$", _read(STATUS), re.MULTILINE)
    digest.update(f"{os.geteuid()}:{os.uname().release}:{_kvm_gid()}:{limits}".encode())
    return digest.hexdigest()


BOOT_ID = "/proc/sys/kernel/random/boot_id"
LABEL = "/proc/self/attr/current"
USERS = "/proc/self/uid_map"
STATUS = "/proc/self/status"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _find(program: str) -> str:
    found = shutil.which(program)
    return os.path.realpath(found) if found else ""


def _probe_filter() -> Finding:
    try:
        setuid_filter.build()
    except ToolMissing as error:
        return Finding(False, error.message.rstrip("."))
    return Finding(True)


def _probe_seccomp(qemu: str) -> Finding:
    # Options are read in order, so -version ends it after -sandbox was found right or wrong.
    failure = _run([qemu, *SECCOMP, "-version"])
    return Finding(failure is None, f"this QEMU has no seccomp: {failure}" if failure else "")


def _first_that_works(qemu: str, base: Probe, variant: Variant, account: Account) -> Probe:
    """The best of what bubblewrap and the kernel can do, from all of it down to the bare view."""
    failure: Finding | None = None
    for own_pids, sealed in ((True, True), (True, False), (False, True), (False, False)):
        attempt = attrs.evolve(base, own_pids=own_pids, sealed=sealed)
        finding = _try(qemu, attempt, variant, account)
        if finding.works:
            return attrs.evolve(attempt, user=finding)
        failure = failure or finding
    assert failure is not None
    return attrs.evolve(base, user=failure)


def _try(qemu: str, probe: Probe, variant: Variant, account: Account) -> Finding:
    box = Box(variant, account, variant is Variant.OWNER, probe.filter.works, False, (), probe)
    filter_fd = setuid_filter.descriptor() if probe.filter.works else None
    try:
        with tempfile.TemporaryDirectory(prefix="sandbox-probe-") as folder:
            if box.changes_user:
                try:
                    os.chown(folder, account.uid, account.gid)
                except OSError:
                    # Root of a rootless container may be all the users that there are.
                    return Finding(False, "no other user exists in this user namespace")
            view = View(vm=folder, workspace=folder)
            failure = _run(wrap(box, view, [qemu, "-version"], filter_fd=filter_fd), filter_fd)
    finally:
        if filter_fd is not None:
            os.close(filter_fd)
    return Finding(failure is None, _explain(failure) if failure else "")


def _explain(failure: str) -> str:
    if _read(SWITCHES[0]) == "0":
        return "this kernel allows no user namespaces (user.max_user_namespaces = 0)"
    if os.geteuid() != 0 and _read(SWITCHES[1]) == "0":
        return "only root may make user namespaces here (kernel.unprivileged_userns_clone = 0)"
    if os.geteuid() != 0 and _read(SWITCHES[2]) == "1" and "ermission denied" in failure:
        return (
            "AppArmor restricts user namespaces here and has no profile that lets bubblewrap make "
            f"one (kernel.apparmor_restrict_unprivileged_userns = 1): {failure}"
        )
    return f"bubblewrap cannot make the box: {failure}"


def _run(argv: list[str], *fds: int | None) -> str | None:
    """None where it succeeds, else what it said last."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[fd for fd in fds if fd is not None],
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _kvm_gid() -> int | None:
    try:
        return os.stat("/dev/kvm").st_gid
    except OSError:
        return None


def needs(programs: Iterable[str]) -> tuple[Mount, ...]:
    """What must be visible for programs to run: the system, and single files that lie elsewhere.

    A QEMU of one's own (/opt, /nix, ~/.local) brings its libraries and its data along; its whole
    prefix is not shown, since that may be somebody's home.
    """
    found = list(_system())
    shown = {mount.target for mount in found}
    for program in programs:
        for path in [program, *_libraries(program), *_data(program)]:
            real = os.path.realpath(path)
            for target in (real, path):
                if target not in shown and not _is_shown(target, found):
                    found.append(Mount("ro-bind", real, target))
                    shown.add(target)
    return tuple(found)


def _system() -> Iterable[Mount]:
    yield Mount("ro-bind", "/usr", "/usr")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            yield Mount("symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield Mount("ro-bind", str(path), str(path))


def _is_shown(path: str, system: Iterable[Mount]) -> bool:
    return any(path.startswith(f"{mount.target}/") for mount in system)


def _libraries(program: str) -> list[str]:
    try:
        done = subprocess.run(
            ["ldd", program],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"(?:^|\s)(/\S+) \(0x", done.stdout.decode(errors="surrogateescape"))


def _data(program: str) -> list[str]:
    prefix = Path(program).resolve().parent.parent
    candidates = ("share/qemu", "share/seabios", "lib/qemu", "lib64/qemu")
    return [str(prefix / one) for one in candidates if (prefix / one).is_dir()]
