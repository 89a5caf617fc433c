"""A warm start: a machine goes on from its template, and gets its identity from the agent.

    keys, registries ──▶ network process ──┐
    QEMU ──▶ state loaded ─────────────────┴─▶ identity ─┬─▶ workspace ──┬──▶ running
                                                         └─▶ login ──────┘

The two lines run beside each other. Before it has its identity the guest has no address, no host
key and nobody who may log in, and it sends no frame: QEMU 7.2 would not survive one without a peer.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Mapping

import anyio
import anyio.abc
import anyio.to_thread
import attrs
from attrs import define, field

from sandbox_rpc.config.choices import Warm
from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.protocol.errors import (
    GuestFailed,
    QemuFailed,
    SshUnreachable,
    TemplateInvalid,
)
from sandbox_rpc.qemu import migrate, template
from sandbox_rpc.qemu import store as templates
from sandbox_rpc.qemu.launch import Ends
from sandbox_rpc.qemu.machine import Accelerator, Machine
from sandbox_rpc.qemu.qmp import QmpError
from sandbox_rpc.qemu.store import Template
from sandbox_rpc.qemu.view import Mount, View
from sandbox_rpc.ssh import login
from sandbox_rpc.supervisor import leftovers, proxy
from sandbox_rpc.supervisor import request as requests
from sandbox_rpc.supervisor.enclose import hand_over
from sandbox_rpc.supervisor.ended import unless_ended
from sandbox_rpc.supervisor.finish import NO_AGENT, publish
from sandbox_rpc.supervisor.ground import Ground
from sandbox_rpc.supervisor.holders import end_holders
from sandbox_rpc.supervisor.introduce import NOTHING, make_identity
from sandbox_rpc.supervisor.net import Net
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.power import make_folders, open_network, power_on
from sandbox_rpc.supervisor.request import Launch
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.steps import Steps
from sandbox_rpc.supervisor.template import Missing, obtain
from sandbox_rpc.supervisor.vm import Vm, attach

log = logging.getLogger(__name__)

LIMIT_S = {Accelerator.KVM: 20.0, Accelerator.TCG: 120.0}
"""From QEMU's start to the login; a guest that takes longer is given up."""


STATUS_LIMIT_S = 10
"""For the agent of a machine that is adopted to say how far it has come."""


class Fallback(Exception):
    """The machine could not go on from its template; a cold start may do better."""


async def template_for(ground: Ground, image: StoredImage, steps: Steps) -> Template | Missing:
    """The template to start from, made where there is none, or why there is none."""
    if ground.settings.warm is Warm.NEVER:
        return Missing("warm = never")
    if (reason := unfit(image)) is not None:
        return Missing(reason)
    with steps.step("template", "Looking for the template", 5):
        return await obtain(ground.place.layout, ground, image, steps.report)


def unfit(image: StoredImage) -> str | None:
    """Why no template can be made of an image."""
    if not image.agent:
        return NO_AGENT
    if image.foreign:
        return "the image is not one of ours: it takes its network and our agent as it boots"
    return None


async def go_on(
    ground: Ground,
    image: StoredImage,
    origin: Template,
    wish: Wish,
    store: Store,
    steps: Steps,
    group: anyio.abc.TaskGroup,
) -> tuple[Launch, Vm]:
    """Start from a template, up to a proven login; open ends live in `group`.

    Raises:
        Fallback: it did not work out. Nothing of it is left running, and a template that cannot be
            trusted any more is gone.
        SandboxError: what a cold start would not get over either.
    """
    attempt = Attempt(ground, image, origin, wish, store, steps, group)
    limit_s = LIMIT_S[ground.accelerator]
    try:
        with anyio.fail_after(limit_s) as attempt.limit:
            return await attempt.run()
    except BaseException as caught:
        await attempt.end()
        error = unwrapped(caught)
        match error:
            case TimeoutError():
                why = f"the restored guest did not answer within {limit_s:g} s"
            case GuestFailed() if error.details.get("refused"):
                # It lives, and says what it does not like: that need not be the template.
                raise Fallback(f"restoring failed: {error.message}") from None
            case TemplateInvalid() | QemuFailed() | SshUnreachable() | GuestFailed():
                why = f"restoring failed: {error.message}"
            case QmpError():
                why = f"restoring failed: QEMU says: {error}"
            case OSError():
                # As where somebody has removed it meanwhile.
                why = f"restoring failed: {error}"
            case _:
                raise
        log.warning("template %s: %s; it is thrown away", origin.key, why)
        await anyio.to_thread.run_sync(templates.discard, ground.place.layout, origin.key)
        raise Fallback(why) from None


async def has_identity(note: Launch, vm: Vm) -> bool:
    """Whether a guest whose supervisor has died during its start was given its identity."""
    if not note.host_key:
        return False
    with anyio.move_on_after(STATUS_LIMIT_S):
        try:
            await vm.agent.greet()
        except GuestFailed:
            return False
        return vm.agent.is_ready
    return False


@define
class Attempt:
    """One start from a template."""

    ground: Ground
    image: StoredImage
    origin: Template
    wish: Wish
    store: Store
    steps: Steps
    group: anyio.abc.TaskGroup
    limit: anyio.CancelScope = field(factory=anyio.CancelScope)
    """Ends it when the guest takes too long."""
    vm: Vm | None = None
    net: Net | None = None
    identity: Identity | None = None
    host_key: str = ""
    told: anyio.Event = field(factory=anyio.Event)
    """Set when the guest has taken its identity, and the workspace is mounted."""
    known: anyio.Event = field(factory=anyio.Event)
    """Set when the identity is."""
    plugged: anyio.Event = field(factory=anyio.Event)
    """Set when QEMU's network cable has a peer."""
    connected: anyio.Event = field(factory=anyio.Event)
    """Set when the network process is up."""

    async def run(self) -> tuple[Launch, Vm]:
        """All of it."""
        async with anyio.create_task_group() as beside:
            beside.start_soon(self.introduce)
            with self.steps.step("restore", "Restoring the machine", 70):
                note = await self.switch_on()
                beside.start_soon(self.plug_in)
                assert note.process is not None
                vm = self.vm = await attach(self.ground.place.room, note.process, self.group)
                await unless_ended(vm, self.restore(vm))
            with self.steps.step("identity", "Giving the guest its identity", 80):
                beside.start_soon(self.tell, vm)
                await unless_ended(vm, vm.agent.reachable.wait())
            with self.steps.step("login", "Logging in", 90):
                note = await self.let_in(note, vm)
                await unless_ended(vm, self.prove())
                await vm.agent.tell("proceed")
                await unless_ended(vm, self.told.wait())
            return note, vm
        raise AssertionError  # the group does not swallow anything

    async def introduce(self) -> None:
        """Make the identity."""
        self.identity, self.host_key, supply = await make_identity(
            self.ground.place, self.ground.settings, self.ground.box, self.image
        )
        self.wish = self.wish._replace(pins=supply.pins)
        said = [*supply.warnings, *proxy.prepare(self.ground.place, self.ground.settings, supply)]
        self.store.change(warnings=[*self.store.sandbox.warnings, *said])
        # It may take minutes to make an image for the proxy's container; the guest is not to blame.
        self.limit.deadline = math.inf
        await proxy.ready(self.ground.place, self.ground.settings, self.steps.report)
        self.limit.deadline = anyio.current_time() + LIMIT_S[self.ground.accelerator]
        # Before the guest can write to it.
        await anyio.to_thread.run_sync(
            leftovers.begin, self.ground.place, self.ground.request.workspace
        )
        self.known.set()

    async def switch_on(self) -> Launch:
        """Start QEMU on the template's files; it waits for the state."""
        ground, origin = self.ground, self.origin
        room = ground.place.room
        make_folders(ground)
        origin.take_blank(room.overlay)
        hand_over(room.overlay, ground.box)
        origin.touch()
        note = Launch(
            ground.request, ground.accelerator, self.image.ssh_port, host_key="",
            own_network=ground.own_network, template=origin.key,
        )  # fmt: skip
        return await power_on(ground, self.view(), self.describe, note, self.store)

    def view(self) -> View:
        """What QEMU sees: of the template, its memory and disk."""
        memory, disk = self.origin.files.memory, self.origin.files.disk
        bind = "ro-bind" if self.ground.qemu.seals_memory else "bind"
        return self.ground.view(
            self.image,
            Mount(bind, str(memory), f"{template.FOLDER}/{memory.name}"),
            Mount("ro-bind", str(disk), f"{template.FOLDER}/{disk.name}"),
        )

    def describe(self, seen: Mapping[str, str], ends: Ends) -> Machine:
        """The machine, as QEMU sees its files."""
        return template.restored(
            self.ground.machine(self.image, NOTHING, seen, ends),
            memory=seen[str(self.origin.files.memory)],
            disk=seen[str(self.origin.files.disk)],
            sealed=self.ground.qemu.seals_memory,
        )

    async def plug_in(self) -> None:
        """Start the network process."""
        await self.known.wait()
        self.net = await open_network(
            self.ground, self.wish, self.image.ssh_port, plugged=self.plugged
        )
        self.plugged.set()
        self.connected.set()

    async def restore(self, vm: Vm) -> None:
        """Load the state and let the guest run."""
        await migrate.load(vm.qmp, self.origin.state())
        await self.plugged.wait()
        await vm.qmp.execute("cont")

    async def tell(self, vm: Vm) -> None:
        """Tell the guest who it is, and what time it is."""
        await self.known.wait()
        assert self.identity is not None
        document = guest.renewed(
            self.identity, now=time.time(), entropy=secrets.token_bytes(guest.ENTROPY)
        )
        answer = await vm.agent.ask(
            "identity", document, timeout_s=LIMIT_S[self.ground.accelerator]
        )
        log.info("the guest took its identity: %s", " ".join(answer.decode().split()))
        vm.agent.reachable.set()
        self.told.set()

    async def let_in(self, note: Launch, vm: Vm) -> Launch:
        """Open the way for SSH."""
        await self.connected.wait()
        if self.net is not None:
            vm.plug(self.net, self.group)
            self.store.change(box=[*self.store.sandbox.box, *self.net.layers()])
        note = attrs.evolve(note, host_key=self.host_key, pins=list(self.wish.pins))
        requests.note(self.ground.place.room, note)
        await publish(self.ground.place, note, vm, self.store)
        return note

    async def prove(self) -> None:
        """Log in."""
        place = self.ground.place
        limit_s = LIMIT_S[self.ground.accelerator]
        await login.prove(place.home.ssh_config, place.name, timeout_s=limit_s)

    async def end(self) -> None:
        """Leave nothing running."""
        with anyio.CancelScope(shield=True):
            if self.vm is not None:
                await self.vm.quit()
            else:
                await end_holders(self.ground.place)
            if self.net is not None and (self.vm is None or self.vm.net is None):
                await self.net.discard()
