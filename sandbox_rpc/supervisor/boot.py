"""A cold start up to a running QEMU: image, disk, identity, box, process."""

from __future__ import annotations

import errno
import json
import os
import pwd
import secrets
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import attrs

from sandbox_rpc.config.settings import Settings
from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import CREDENTIAL_PREFIX, Layout
from sandbox_rpc.images import build, disk
from sandbox_rpc.images import store as images
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import ImageNotFound, SandboxBusy, WorkspaceRefused
from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.protocol.types import State
from sandbox_rpc.qemu import box as boxes
from sandbox_rpc.qemu import capabilities, probe
from sandbox_rpc.qemu.box import Account, Box, Policy
from sandbox_rpc.qemu.capabilities import Qemu
from sandbox_rpc.qemu.launch import Ends, launch
from sandbox_rpc.qemu.machine import (
    WORKSPACE_TAG,
    Accelerator,
    Disk,
    Machine,
    Share,
    UserNetwork,
)
from sandbox_rpc.qemu.view import IMAGE, Mount, View, masked
from sandbox_rpc.ssh import keys
from sandbox_rpc.supervisor import request as requests
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.request import Launch, Place, StartRequest
from sandbox_rpc.supervisor.state import Store, now
from sandbox_rpc.supervisor.steps import Steps
from sandbox_rpc.supervisor.vm import Vm, attach

LOCK_LIMIT_S = 2


async def boot(
    place: Place, request: StartRequest, store: Store, steps: Steps, group: anyio.abc.TaskGroup
) -> tuple[Launch, Vm]:
    """Start QEMU for a request; its open ends live in `group`.

    Raises:
        SandboxError: whatever stands in the way; nothing is left running, files are the caller's.
    """
    settings = request.settings
    accelerator, warning = capabilities.choose(settings.accelerator, capabilities.probe_kvm())
    qemu = await anyio.to_thread.run_sync(
        capabilities.find_qemu, settings.qemu_binary, place.layout.qemu_probe
    )
    box = await choose_box(place.layout, qemu, settings, request.workspace)
    security = "mapped-xattr" if box.needs_mapped else str(settings.workspace_security)
    if security == "mapped-xattr":
        check_xattr(request.workspace, forced=box.needs_mapped)
    warnings = [*request.warnings, *filter(None, [warning]), *_missing_layers(box)]
    store.change(
        accelerator=str(accelerator), network="open", memory_mib=settings.memory_mib,
        cpus=settings.cpus, disk_mib=settings.disk_mib, box=list(box.layers), warnings=warnings,
        started_at=now(),
    )  # fmt: skip
    with steps.step("image", "Looking for the image"):
        image = await ensure_image(place.layout, settings, steps.report)
        store.change(image=image.ref, image_digest=image.digest)
    with steps.step("disk", "Making the disk"):
        _make_folder(place, box)
        await disk.create_overlay(place.room.overlay, image, settings.disk_mib)
        _hand_over(place.room.overlay, box)
    with steps.step("identity", "Making keys"):
        identity, host_key = await make_identity(place, settings, box)
        credentials = _write_credentials(place, identity, box)
    with steps.step("qemu", "Starting QEMU"):
        store.change(workspace_security=security)
        what = View(
            vm=str(place.room.qemu),
            workspace=request.workspace,
            files=tuple(
                Mount("ro-bind", str(path), f"{IMAGE}/{path.name}") for path in _files(image)
            ),
            masks=masked(request.workspace, request.masks),
            kvm=accelerator is Accelerator.KVM,
        )

        def describe(seen: Mapping[str, str], ends: Ends) -> Machine:
            return machine(
                place.name,
                request,
                image,
                qemu,
                accelerator,
                security,
                credentials,
                box,
                seen,
                ends,
            )

        note = Launch(request, accelerator, image.ssh_port, host_key)
        requests.note(place.room, note)
        lock_fd = await take_lock(place)
        try:
            process = await launch(
                qemu=qemu, box=box, what=what, describe=describe, room=place.room, lock_fd=lock_fd
            )
        finally:
            os.close(lock_fd)
        note = attrs.evolve(note, process=process)
        requests.note(place.room, note)
        files.replace(place.room.qemu_pid, f"{process.pid}\n")
        vm = await attach(place.room, process, group)
        store.change(pid=process.pid, state=State.STARTING)
        for path in credentials:
            # QEMU has them in its memory; the host key's private half need not lie about.
            (place.room.qemu / path).unlink(missing_ok=True)
    return note, vm


async def take_lock(place: Place) -> int:
    """The lock that QEMU is to hold.

    Raises:
        SandboxBusy: another machine of this name holds it.
    """
    with anyio.move_on_after(LOCK_LIMIT_S):
        # Somebody who only asks whether it is held, holds it for that instant.
        while (lock_fd := locks.acquire(place.home.vm_lock)) is None:
            await anyio.sleep(locks.RETRY_S)
        return lock_fd
    raise SandboxBusy(f"A machine of {place.name} is still running.", name=place.name)


def check_xattr(workspace: str, *, forced: bool) -> None:
    """Make sure that the workspace's file system keeps the attributes `mapped-xattr` needs.

    Raises:
        WorkspaceRefused: it does not; the guest could not change an owner or a mode.
    """
    try:
        os.getxattr(workspace, "user.virtfs.mode")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            return  # no such attribute: it could have one
        raise WorkspaceRefused(
            f"The file system of {workspace} has no user extended attributes, "
            "which workspace.security = mapped-xattr needs.",
            hint="This host cannot filter setuid files, so mapped-xattr is a must for root: start "
            "it as an ordinary user, or share a folder on another file system."
            if forced
            else "Use workspace.security = none, or share a folder on another file system.",
            path=workspace,
        ) from None


async def ensure_image(layout: Layout, settings: Settings, report: Report) -> StoredImage:
    """The image of the settings; the default one is built where it is missing.

    Raises:
        ImageNotFound: it is neither there nor the one we know how to make.
        BuildFailed: it could not be made.
    """
    try:
        return await anyio.to_thread.run_sync(images.resolve, layout, settings.image)
    except ImageNotFound:
        if settings.image != images.DEFAULT_REF:
            raise
    report(Progress("image", "Waiting for an image that is being built"))
    async with locks.held_async(layout.build_lock):
        # Several sandboxes may have found it missing; one builds for all.
        with suppress(ImageNotFound):
            return await anyio.to_thread.run_sync(images.resolve, layout, settings.image)
        return await build.build(layout, settings.image, report, source=settings.build_mirror)


async def choose_box(layout: Layout, qemu: Qemu, settings: Settings, workspace: str) -> Box:
    """The box for this host, this QEMU and this folder's owner; the probe is remembered."""
    found = await anyio.to_thread.run_sync(recall_probe, layout, qemu.path)
    policy = Policy(
        str(settings.box_namespace), str(settings.box_filter), str(settings.box_seccomp)
    )
    return boxes.choose(
        policy,
        found,
        owner=owner_of(workspace),
        me=Account(os.geteuid(), os.getegid()),
    )


def owner_of(workspace: str) -> Account:
    """Whom a folder belongs to: its owner, with the owner's own group where that is known."""
    stat = os.stat(workspace)
    try:
        return Account(stat.st_uid, pwd.getpwuid(stat.st_uid).pw_gid)
    except KeyError:
        return Account(stat.st_uid, stat.st_gid)


def recall_probe(layout: Layout, qemu: str) -> boxes.Probe:
    """What this host can do for the box; asked again when anything it depends on has changed."""
    key = probe.fingerprint(qemu)
    try:
        known = json.loads(layout.box_probe.read_bytes())
        if known["key"] == key:
            return convert.from_wire(known["probe"], boxes.Probe)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = probe.probe(qemu)
    layout.box_probe.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(layout.box_probe, json.dumps({"key": key, "probe": convert.to_wire(found)}))
    return found


async def make_identity(place: Place, settings: Settings, box: Box) -> tuple[Identity, str]:
    """A fresh identity with its host key, and the public half of that."""
    found: dict[str, object] = {}

    async def host() -> None:
        found["host"] = await keys.make_pair(place.name, place.room.folder)

    async def client() -> None:
        found["client"] = await keys.ensure_client_key(place.home.client_key, f"to {place.name}")

    async def agent() -> None:
        found["agent"] = await keys.agent_keys() if settings.ssh_agent_keys else ()

    try:
        async with anyio.create_task_group() as group:
            for work in (host, client, agent):
                group.start_soon(work)
    except ExceptionGroup as errors:
        raise unwrapped(errors) from None
    pair = found["host"]
    assert isinstance(pair, keys.KeyPair)
    allowed = (found["client"], *found["agent"])  # type: ignore[misc]
    account = box.account
    return Identity(
        hostname=guest.hostname_of(place.name),
        machine_id=secrets.token_hex(16),
        authorized_keys=tuple(str(key) for key in allowed),
        host_key=pair.private,
        environment={"SANDBOX_CONTAINER": place.name},
        # Root cannot be mapped away without a namespace, and dev is never root in the guest.
        uid=None if box.maps_to_dev or account.uid == 0 else account.uid,
        gid=None if box.maps_to_dev or account.uid == 0 else account.gid,
    ), " ".join(pair.public.split()[:2])


def machine(
    name: str,
    request: StartRequest,
    image: StoredImage,
    qemu: Qemu,
    accelerator: Accelerator,
    security: str,
    credentials: tuple[str, ...],
    box: Box,
    seen: Mapping[str, str],
    ends: Ends,
) -> Machine:
    """The virtual machine of a request; pure but for its fresh UUID."""
    settings = request.settings
    return Machine(
        name=name,
        uuid=str(uuid.uuid4()),
        arch=qemu.arch,
        machine_type=qemu.machine_type,
        accelerator=accelerator,
        memory_mib=settings.memory_mib,
        cpus=settings.cpus,
        kernel=seen[str(image.kernel)],
        initrd=seen[str(image.initrd)],
        kernel_command_line=image.kernel_command_line,
        disk=Disk(overlay="overlay.qcow2", base=seen[str(image.disk)]),
        shares=(
            Share(
                WORKSPACE_TAG,
                seen[request.workspace],
                security,
                read_only=settings.workspace_read_only,
            ),
        ),
        network=UserNetwork(),
        qmp=ends.qmp,
        agent=ends.agent,
        serial=ends.serial,
        console_log="console.log",
        credential_files=credentials,
        seccomp=box.seccomp_args,
    )


def _files(image: StoredImage) -> tuple[Path, Path, Path]:
    return image.disk, image.kernel, image.initrd


def _missing_layers(box: Box) -> list[str]:
    missing = [
        f"The box lacks its layer {layer.name}: {layer.detail}."
        for layer in box.layers
        if not layer.active
    ]
    if not box.maps_to_dev and box.account.uid == 0:
        missing.append(
            "Without a user namespace root's folder stays root's in the guest: "
            "dev needs sudo to write to the workspace."
        )
    return missing


def _make_folder(place: Place, box: Box) -> None:
    """QEMU's own folder; the rest of the room it never sees."""
    folder = place.room.qemu
    shutil.rmtree(folder, ignore_errors=True)
    with files.translated(folder):
        folder.mkdir(mode=0o700)
    _hand_over(folder, box)


def _write_credentials(place: Place, identity: Identity, box: Box) -> tuple[str, ...]:
    names = []
    for name, value in guest.credentials(identity).items():
        path = place.room.qemu / f"{CREDENTIAL_PREFIX}{name}"
        files.replace(path, guest.smbios(name, value))
        _hand_over(path, box)
        names.append(path.name)
    return tuple(names)


def _hand_over(path: Path, box: Box) -> None:
    if box.changes_user:
        os.chown(path, box.account.uid, box.account.gid)
