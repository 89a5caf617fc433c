"""What this host has and lacks, each finding with what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress

from sandbox_rpc.config.choices import Warm
from sandbox_rpc.host import process
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference, store
from sandbox_rpc.network import libslirp
from sandbox_rpc.network.support import COST, remedy
from sandbox_rpc.protocol.errors import ImageNotFound, SandboxError
from sandbox_rpc.protocol.types import Check, Doctor, Verdict
from sandbox_rpc.qemu import capabilities
from sandbox_rpc.qemu import store as templates
from sandbox_rpc.qemu.box import Finding
from sandbox_rpc.qemu.capabilities import Qemu
from sandbox_rpc.supervisor import scope
from sandbox_rpc.supervisor.enclose import recall_probe
from sandbox_rpc.supervisor.template import NEEDED_MIB
from sandbox_rpc.supervisor.warm import unfit

GIB = 1 << 30
ROOM_WANTED = 4 * GIB
"""For an image and the disks of a few sandboxes."""


def examine(layout: Layout, qemu_binary: str = "", warm: Warm = Warm.AUTO) -> Doctor:
    """Look at everything a start needs; takes half a second, changes nothing but what is cached."""
    checks = list(_examine(layout, qemu_binary, warm))
    return Doctor(all(check.status is not Verdict.ERROR for check in checks), checks)


def _examine(layout: Layout, qemu_binary: str, warm: Warm) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", Verdict.OK, f"Python {version}")
    qemu = None
    try:
        qemu = capabilities.find_qemu(qemu_binary, layout.qemu_probe)
    except SandboxError as error:
        yield Check("qemu", Verdict.ERROR, error.message, error.hint)
    else:
        found = ".".join(map(str, qemu.version))
        yield Check("qemu", Verdict.OK, f"QEMU {found} at {qemu.path}, board {qemu.machine_type}")
    kvm = capabilities.probe_kvm()
    yield Check(
        "kvm",
        Verdict.OK if kvm.usable else Verdict.WARNING,
        kvm.detail if kvm.usable else f"{kvm.detail}; guests are emulated, ten times slower",
        kvm.hint,
    )
    if qemu is not None:
        yield from _box(layout, qemu.path)
    yield _network()
    yield _limits()
    yield from _tools()
    yield _room(layout)
    yield _image(layout)
    yield _warm(layout, qemu, warm)


def _box(layout: Layout, qemu: str) -> Iterator[Check]:
    found = recall_probe(layout, qemu)
    layers: list[tuple[str, Finding, str]] = [
        ("box.namespace", found.user, "QEMU runs in a user namespace and sees only its own files"),
        ("box.filter", found.filter, "QEMU cannot make setuid files"),
        ("box.seccomp", found.seccomp, "QEMU refuses itself system calls it does not need"),
    ]
    for name, finding, good in layers:
        if finding.works:
            yield Check(name, Verdict.OK, good)
        else:
            yield Check(
                name, Verdict.WARNING, finding.detail,
                "Sandboxes start without this wall; docs/security.md says what it costs.",
            )  # fmt: skip


def _network() -> Check:
    found = libslirp.probe()
    if found.works:
        return Check(
            "network", Verdict.OK,
            f"libslirp {found.version}: the guest's network is a process of its own",
        )  # fmt: skip
    return Check("network", Verdict.WARNING, f"{found.detail}; {COST}", remedy())


def _limits() -> Check:
    why = scope.missing()
    if not why:
        return Check("limits", Verdict.OK, "a sandbox's memory and processes are limited as one")
    return Check(
        "limits", Verdict.WARNING,
        f"{why}: a sandbox's memory and processes have no limit as one, and it ends with the "
        "session it was started in",
        "Log in by a way that starts one, or as root: loginctl enable-linger USER",
    )  # fmt: skip


def _tools() -> Iterator[Check]:
    needed: dict[str, tuple[Verdict, str]] = {
        "qemu-img": (Verdict.ERROR, "makes the guest's disk"),
        "ssh": (Verdict.ERROR, "logs in"),
        "ssh-keygen": (Verdict.ERROR, "makes keys"),
        "mmdebstrap": (Verdict.WARNING, "builds images"),
        "mke2fs": (Verdict.WARNING, "builds images"),
    }
    for tool, (gravity, purpose) in needed.items():
        try:
            process.find(tool)
        except SandboxError as error:
            yield Check(tool, gravity, error.message, error.hint)
        else:
            yield Check(tool, Verdict.OK, f"{tool}: {purpose}")


def _room(layout: Layout) -> Check:
    folder = layout.base
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check(
            "disk", Verdict.ERROR, f"{folder} cannot be written", "Set SANDBOX_CACHE_BASE."
        )
    return Check(
        "disk",
        Verdict.OK if free >= ROOM_WANTED else Verdict.WARNING,
        f"{free / GIB:.1f} GiB free for {layout.base}",
        None if free >= ROOM_WANTED else "Free some space, or set SANDBOX_CACHE_BASE.",
    )


def _image(layout: Layout) -> Check:
    for ref in (reference.DEFAULT, reference.BUILT):
        try:
            image = store.resolve(layout, ref)
        except ImageNotFound:
            continue
        except SandboxError as error:
            return Check("image", Verdict.WARNING, error.message, error.hint)
        return Check("image", Verdict.OK, f"{image.ref} ({image.digest[:19]}, {image.created_at})")
    return Check(
        "image",
        Verdict.WARNING,
        f"{reference.DEFAULT} is not here",
        "The first start gets it, or builds one where it cannot be reached; both take minutes.",
    )


def _warm(layout: Layout, qemu: Qemu | None, wish: Warm) -> Check:
    """What keeps starts from going on from templates."""
    if wish is Warm.NEVER:
        return Check("warm", Verdict.OK, "warm = never: every start boots a kernel")
    found = list(templates.every(layout))
    for key in templates.failures(layout):
        reason = templates.failure(layout, key)
        return Check(
            "warm", Verdict.WARNING, f"a template could not be made, so starts boot: {reason}",
            "`sandbox template build` tries it again.",
        )  # fmt: skip
    free = shutil.disk_usage(layout.base if layout.base.exists() else "/").free
    if not found and free < NEEDED_MIB << 20:
        return Check(
            "warm", Verdict.WARNING, f"a template needs {NEEDED_MIB} MiB: starts boot a kernel",
            "Free some space, or set SANDBOX_CACHE_BASE.",
        )  # fmt: skip
    for ref in (reference.DEFAULT, reference.BUILT):
        with suppress(SandboxError):
            if (reason := unfit(store.resolve(layout, ref))) is not None:
                return Check(
                    "warm", Verdict.WARNING, f"{ref} boots a kernel each time: {reason}",
                    "`sandbox image build` makes one that need not.",
                )  # fmt: skip
            break
    size = sum(one.size_bytes for one in found) >> 20
    sealed = qemu is not None and qemu.seals_memory
    return Check(
        "warm", Verdict.OK,
        (f"{len(found)} templates to start from, {size} MiB" if found else
         "the next start makes a template, later ones go on from it")
        + ("" if sealed else "; QEMU before 8.2 opens their memory for writing (docs/security.md)"),
    )  # fmt: skip
