"""A cold start up to a running QEMU: image, disk, identity, box, process."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.abc
import attrs

from sandbox_rpc.config.choices import Network
from sandbox_rpc.host import files, locks, names
from sandbox_rpc.images import disk
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.network.settings import MTU
from sandbox_rpc.protocol.errors import SandboxBusy
from sandbox_rpc.protocol.types import State
from sandbox_rpc.qemu import capabilities
from sandbox_rpc.qemu.box import Box
from sandbox_rpc.qemu.capabilities import Qemu
from sandbox_rpc.qemu.launch import Ends, launch
from sandbox_rpc.qemu.machine import (
    PERSIST_TAG,
    WORKSPACE_TAG,
    Accelerator,
    Disk,
    Machine,
    Share,
    StreamNetwork,
    UserNetwork,
)
from sandbox_rpc.qemu.view import IMAGE, PERSIST, Mount, View, masked
from sandbox_rpc.supervisor import image as images
from sandbox_rpc.supervisor import leftovers, net, proxy, scope
from sandbox_rpc.supervisor import request as requests
from sandbox_rpc.supervisor.enclose import (
    check_xattr,
    choose_box,
    hand_over,
    hand_over_all,
    missing_layers,
)
from sandbox_rpc.supervisor.introduce import Told, command_line, introduce, make_identity
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
    warnings = [*request.warnings, *filter(None, [warning]), *missing_layers(box)]
    protected, problems = leftovers.protected(request, box)
    warnings += problems
    wish = net.wish(settings, place.room)
    support = net.support()
    warnings += net.remarks(settings, support)
    store.change(
        accelerator=str(accelerator), network=str(settings.network), memory_mib=settings.memory_mib,
        cpus=settings.cpus, disk_mib=settings.disk_mib, persist=settings.persisted,
        warnings=warnings,
        box=[*box.layers, *net.absent(support)],
        started_at=now(),
    )  # fmt: skip
    with steps.step("image", "Looking for the image"):
        choice = await images.claim(place, settings, store, steps.report)
        image, warnings = choice.image, [*warnings, *choice.remarks]
        store.change(warnings=warnings)
    with steps.step("disk", "Making the disk"):
        _make_folders(place, box)
        await disk.create_overlay(place.room.overlay, image, settings.disk_mib)
        hand_over(place.room.overlay, box)
    with steps.step("identity", "Making keys"):
        identity, host_key, supply = await make_identity(place, settings, box, image)
        told = introduce(place, identity, host_key, box, image)
        wish = wish._replace(pins=supply.pins, dhcp=image.foreign)
        warnings += [*supply.warnings, *proxy.prepare(place, settings, supply)]
        store.change(warnings=warnings)
        await proxy.ready(place, settings, steps.report)
    leftovers.begin(place, request.workspace)
    with steps.step("qemu", "Starting QEMU"):
        # Not before: an image is built by processes of ours, which need more.
        limits = await anyio.to_thread.run_sync(
            scope.limit, place.name, settings.memory_mib, settings.cpus
        )
        layers = [*box.layers, limits, *net.absent(support)]
        store.change(workspace_security=security, box=layers)
        what = View(
            vm=str(place.room.qemu),
            workspace=request.workspace,
            files=(
                *(Mount("ro-bind", str(path), f"{IMAGE}/{path.name}") for path in _files(image)),
                Mount("bind", str(place.home.persist), PERSIST),
            ),
            masks=masked(request.workspace, request.masks),
            protected=protected,
            kvm=accelerator is Accelerator.KVM,
            network_namespace=support.works,
        )

        def describe(seen: Mapping[str, str], ends: Ends) -> Machine:
            return machine(
                place,
                request,
                image,
                qemu,
                accelerator,
                security,
                told,
                box,
                seen,
                ends,
                own_network=support.works,
            )

        note = Launch(
            request, accelerator, image.ssh_port, host_key, support.works, list(supply.pins),
            agent=image.agent, foreign=image.foreign, environment=dict(identity.environment),
        )  # fmt: skip
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
        vm = await attach(place.room, process, group, agent=image.agent)
        if support.works:
            vm.net = await net.Net.start(
                place.room, wish,
                preferred=names.read(place.layout, place.name).last_port,
                guest_port=image.ssh_port,
            )  # fmt: skip
            group.start_soon(vm.watch_network)
            store.change(box=[*layers, *vm.net.layers()])
        store.change(pid=process.pid, state=State.STARTING)
        for path in told.files:
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


def machine(
    place: Place,
    request: StartRequest,
    image: StoredImage,
    qemu: Qemu,
    accelerator: Accelerator,
    security: str,
    told: Told,
    box: Box,
    seen: Mapping[str, str],
    ends: Ends,
    *,
    own_network: bool,
) -> Machine:
    """The virtual machine of a request; pure but for its fresh UUID."""
    settings = request.settings
    return Machine(
        name=place.name,
        uuid=str(uuid.uuid4()),
        arch=qemu.arch,
        machine_type=qemu.machine_type,
        accelerator=accelerator,
        memory_mib=settings.memory_mib,
        cpus=settings.cpus,
        kernel=seen[str(image.kernel)],
        initrd=seen[str(image.initrd)],
        kernel_command_line=command_line(image),
        disk=Disk(overlay="overlay.qcow2", base=seen[str(image.disk)]),
        shares=(
            Share(
                WORKSPACE_TAG,
                seen[request.workspace],
                security,
                read_only=settings.workspace_read_only,
            ),
            # Its own, since a later life may have another setting for the workspace.
            Share(
                PERSIST_TAG,
                seen[str(place.home.persist)],
                "mapped-xattr" if box.needs_mapped else "none",
            ),
        ),
        network=StreamNetwork(ends.network, MTU)
        if own_network
        else UserNetwork(restricted=settings.network is not Network.OPEN),
        qmp=ends.qmp,
        agent=ends.agent,
        serial=ends.serial,
        console_log="console.log",
        credential_files=told.credentials,
        fw_cfg=told.fw_cfg,
        seed=told.seed,
        seccomp=box.seccomp_args,
    )


def _files(image: StoredImage) -> tuple[Path, Path, Path]:
    return image.disk, image.kernel, image.initrd


def _make_folders(place: Place, box: Box) -> None:
    """QEMU's own folder, and what outlives it; the rest of the room it never sees."""
    folder = place.room.qemu
    shutil.rmtree(folder, ignore_errors=True)
    with files.translated(folder):
        folder.mkdir(mode=0o700)
        place.home.persist.mkdir(mode=0o700, exist_ok=True)
        hand_over(folder, box)
        hand_over_all(place.home.persist, box)
