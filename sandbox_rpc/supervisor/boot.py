"""A start up to a running QEMU: from a template up to the login, else from the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.abc

from sandbox_rpc.images import disk
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.qemu.launch import Ends
from sandbox_rpc.qemu.machine import Machine
from sandbox_rpc.supervisor import image as images
from sandbox_rpc.supervisor import leftovers, proxy, reach, warm
from sandbox_rpc.supervisor.enclose import hand_over, missing_layers
from sandbox_rpc.supervisor.ground import Ground, check_workspace, survey
from sandbox_rpc.supervisor.introduce import introduce, make_identity
from sandbox_rpc.supervisor.power import make_folders, open_network, power_on
from sandbox_rpc.supervisor.request import Launch, Place, StartRequest
from sandbox_rpc.supervisor.state import Store, now
from sandbox_rpc.supervisor.steps import Steps
from sandbox_rpc.supervisor.template import Missing
from sandbox_rpc.supervisor.vm import Vm, attach


async def boot(
    place: Place, request: StartRequest, store: Store, steps: Steps, group: anyio.abc.TaskGroup
) -> tuple[Launch, Vm]:
    """Start QEMU for a request; its open ends live in `group`.

    Where the note has a template, a login has succeeded already.

    Raises:
        SandboxError: whatever stands in the way; nothing is left running, files are the caller's.
    """
    settings = request.settings
    ground = await survey(place, request, folder=request.workspace)
    check_workspace(ground)
    wish = reach.wish(settings, place.room)
    support = reach.support()
    warnings = [*request.warnings, *ground.warnings, *missing_layers(ground.box)]
    warnings += reach.remarks(settings, support)
    store.change(
        accelerator=str(ground.accelerator), network=str(settings.network),
        memory_mib=settings.memory_mib, cpus=settings.cpus, disk_mib=settings.disk_mib,
        persist=settings.persisted, warnings=warnings,
        box=[*ground.box.layers, *reach.absent(support)], started_at=now(),
    )  # fmt: skip
    with steps.step("image", "Looking for the image"):
        choice = await images.claim(place, settings, store, steps.report)
        image, warnings = choice.image, [*warnings, *choice.remarks]
        store.change(warnings=warnings)
    found = await warm.template_for(ground, image, steps)
    if isinstance(found, Missing):
        reason = found.reason
    else:
        try:
            return await warm.go_on(ground, image, found, wish, store, steps, group)
        except warm.Fallback as failure:
            reason = str(failure)
    store.change(warnings=warnings)
    return await from_kernel(ground, image, wish, reason, store, steps, group)


async def from_kernel(
    ground: Ground,
    image: StoredImage,
    wish: Wish,
    reason: str,
    store: Store,
    steps: Steps,
    group: anyio.abc.TaskGroup,
) -> tuple[Launch, Vm]:
    """Start QEMU with a kernel, and say for which reason."""
    place, box = ground.place, ground.box
    with steps.step("disk", "Making the disk"):
        make_folders(ground)
        await disk.create_overlay(place.room.overlay, image, ground.settings.disk_mib)
        hand_over(place.room.overlay, box)
    with steps.step("identity", "Making keys"):
        identity, host_key, supply = await make_identity(place, ground.settings, box, image)
        told = introduce(place, identity, host_key, box, image)
        wish = wish._replace(pins=supply.pins, dhcp=image.foreign)
        said = [*supply.warnings, *proxy.prepare(place, ground.settings, supply)]
        store.change(warnings=[*store.sandbox.warnings, *said])
        await proxy.ready(place, ground.settings, steps.report)
    leftovers.begin(place, ground.request.workspace)
    with steps.step("qemu", "Starting QEMU"):

        def describe(seen: Mapping[str, str], ends: Ends) -> Machine:
            return ground.machine(image, told, seen, ends)

        note = Launch(
            ground.request, ground.accelerator, image.ssh_port, host_key, ground.own_network,
            list(supply.pins), agent=image.agent, foreign=image.foreign,
            environment=dict(identity.environment), cold_reason=reason,
        )  # fmt: skip
        note = await power_on(ground, ground.view(image), describe, note, store)
        assert note.process is not None
        vm = await attach(place.room, note.process, group, agent=image.agent)
        if (network := await open_network(ground, wish, image.ssh_port)) is not None:
            vm.plug(network, group)
            store.change(box=[*store.sandbox.box, *network.layers()])
        for path in told.files:
            # QEMU has them in its memory; the host key's private half need not lie about.
            (place.room.qemu / path).unlink(missing_ok=True)
    return note, vm
