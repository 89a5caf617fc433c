"""Making a template: the machine of a start is booted once, without an identity, and saved.

One maker for each key; others wait for it. The maker's folder is published by one rename, so a
crash, a kill or a full disk leaves no template or a whole one.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
from attrs import frozen

from sandbox_rpc.console import hub
from sandbox_rpc.host import files, locks, process
from sandbox_rpc.host.paths import Layout, Room, TemplateFolder
from sandbox_rpc.images import disk, staging
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import DiskFull, QemuFailed, SandboxError, TemplateInvalid
from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.qemu import migrate, store, template
from sandbox_rpc.qemu.launch import Ends, launch
from sandbox_rpc.qemu.machine import Accelerator, Machine
from sandbox_rpc.qemu.qmp import QmpError
from sandbox_rpc.qemu.store import Origin, Template
from sandbox_rpc.qemu.view import Mount, View
from sandbox_rpc.supervisor.enclose import hand_over
from sandbox_rpc.supervisor.ended import unless_ended
from sandbox_rpc.supervisor.ground import Anywhere, Ground, disk_mib, image_files
from sandbox_rpc.supervisor.hear import first_word
from sandbox_rpc.supervisor.introduce import NOTHING
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.request import START_LIMIT_S
from sandbox_rpc.supervisor.state import now
from sandbox_rpc.supervisor.vm import Vm, attach

log = logging.getLogger(__name__)

NEEDED_MIB = 1024
"""Free space a template wants: what a boot touches of the memory, and writes to the disk."""
WRITING_S = 60.0
"""What a maker may take beside the guest's start."""
MAKER = "maker"
"""Lock in the folder of a template in the making: held by its maker, and not by its QEMU."""


@frozen
class Missing:
    """Why there is no template."""

    reason: str


async def obtain(
    layout: Layout, ground: Ground, image: StoredImage, report: Report, *, retry: bool = False
) -> Template | Missing:
    """The template for a start, made where there is none; `retry` also where that failed lately.

    A damaged one is thrown away, and is missing this once: a start that has found it boots a kernel
    rather than making its user wait twice. A template may be removed by others at any time: who
    cannot open it any more starts cold, who has it open keeps it.
    """
    key = await anyio.to_thread.run_sync(ground.template_key, image)
    await end_orphans(layout)
    try:
        found = await anyio.to_thread.run_sync(store.find, layout, key)
    except TemplateInvalid as error:
        log.warning("thrown away: %s", error)
        await anyio.to_thread.run_sync(store.discard, layout, key)
        if not retry:
            return Missing(error.message.rstrip("."))
        found = None
    if found is not None:
        return found
    report(Progress("template", "Waiting for a template that is being made"))
    async with AsyncExitStack() as stack:
        held = None
        # One that was stopped, or hangs on a dead disk, must not keep everyone from starting.
        with anyio.move_on_after(START_LIMIT_S[ground.accelerator] + WRITING_S):
            held = await stack.enter_async_context(locks.held_async(layout.template_lock(key)))
        if held is None:
            return Missing("another program is making the template, and does not come to an end")
        with suppress(TemplateInvalid):
            if (found := await anyio.to_thread.run_sync(store.find, layout, key)) is not None:
                return found
        if not retry and (reason := store.failure(layout, key)):
            return Missing(f"making a template has failed: {reason}")
        try:
            return await _make(layout, ground, image, key, report)
        except SandboxError as error:
            log.warning("the template could not be made: %s", error)
            # Neither a full disk nor a crash under emulation has to be there the next time.
            if not isinstance(error, DiskFull | QemuFailed):
                store.note_failure(layout, key, error.message)
            return Missing(f"making a template has failed: {error.message}")


async def _make(
    layout: Layout, ground: Ground, image: StoredImage, key: str, report: Report
) -> Template:
    free = shutil.disk_usage(layout.cache).free
    if free < NEEDED_MIB << 20:
        raise DiskFull(
            f"A template needs {NEEDED_MIB} MiB, and {layout.cache} has {free >> 20} left.",
            path=str(layout.cache),
        )
    await anyio.to_thread.run_sync(_clear_up, layout)
    with ExitStack() as stack:
        # Around the folder's life: whoever finds it without its maker ends all that belongs to it.
        async with staging.staging(layout) as place:
            stack.callback(os.close, _mark(place.folder))
            try:
                maker = _Maker(ground, image, place.folder, place.lock, report)
                return await maker.run(layout, key)
            except OSError as error:
                with suppress(OSError), files.translated(place.folder):
                    raise
                raise TemplateInvalid(f"it cannot be written: {error}.") from error
            except BaseExceptionGroup as group:
                raise unwrapped(group) from None
    raise AssertionError  # staging does not swallow anything


def _mark(folder: Path) -> int:
    """Say that a template is made there; the lock says by whom."""
    # It appears held: nobody may find it free in between.
    lock = locks.acquire(folder / f"{MAKER}.new")
    assert lock is not None  # the folder is ours
    (folder / f"{MAKER}.new").rename(folder / MAKER)
    return lock


def _clear_up(layout: Layout) -> None:
    """Before another one takes room: those that nobody can start from any more."""
    store.prune(layout, lambda one: store.has_image(layout, one), keep=store.KEPT - 1)


class _Maker:
    """One making: its folder, its machine."""

    def __init__(
        self, ground: Ground, image: StoredImage, folder: Path, lock: int, report: Report
    ) -> None:
        self.ground = ground
        self.image = image
        self.lock = lock
        self.report = report
        self.room = Room(folder / "room")
        self.empty = folder / "empty"
        self.result = TemplateFolder(folder / "template")

    async def run(self, layout: Layout, key: str) -> Template:
        self.say(5, "Making a template: starting the guest once")
        await self.prepare()
        state = await self.boot_and_save()
        self.say(65, "Making a template: writing it to the disk")
        with files.translated(self.result.folder):
            self.result.state.touch(mode=0o600)
            self.result.state.write_bytes(state)
            self.room.overlay.rename(self.result.disk)
            # QEMU's user may be another one than we.
            self.result.disk.chmod(0o444)
            self.result.memory.chmod(0o444 if self.ground.qemu.seals_memory else 0o600)
        settings = self.ground.settings
        origin = Origin(
            image=self.image.ref,
            image_digest=self.image.digest,
            accelerator=str(self.ground.accelerator),
            memory_mib=settings.memory_mib,
            cpus=settings.cpus,
            disk_mib=disk_mib(settings, self.image),
            qemu=".".join(map(str, self.ground.qemu.version)),
        )
        # Once it has begun, not cancellable: a moment later the template is whole.
        return await anyio.to_thread.run_sync(
            store.publish, layout, key, self.result, origin, now()
        )

    async def prepare(self) -> None:
        box = self.ground.box
        with files.translated(self.room.folder):
            for folder in (self.room.folder, self.room.qemu, self.empty, self.result.folder):
                folder.mkdir(mode=0o700)
            self.result.memory.touch(mode=0o600)
            os.truncate(self.result.memory, self.ground.settings.memory_mib << 20)
        size = self.ground.settings.disk_mib
        await disk.create_overlay(self.room.overlay, self.image, size)
        await disk.create_blank(self.result.blank, disk_mib(self.ground.settings, self.image))
        for path in (self.room.qemu, self.empty, self.room.overlay, self.result.memory):
            hand_over(path, box)

    async def boot_and_save(self) -> bytes:
        process_id = await self.launch()
        limit_s = START_LIMIT_S[self.ground.accelerator]
        async with anyio.create_task_group() as group:
            try:
                vm = await attach(self.room, process_id, group)
                with anyio.move_on_after(limit_s):
                    state = await self.save(vm, limit_s)
                    group.cancel_scope.cancel()
                    return state
                raise TemplateInvalid(
                    f"the guest did not come to rest within {limit_s:g} s. "
                    f"{hub.tail(self.room.console_log)}"
                )
            finally:
                # Before its folder goes, and also when this is cancelled.
                process_id.kill()
                with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                    while process_id.is_alive():
                        await anyio.sleep(0.005)
        raise AssertionError  # the group ends by one of the above

    async def save(self, vm: Vm, limit_s: float) -> bytes:
        cpus = self.ground.settings.cpus
        await first_word(vm, self.ground.accelerator, cpus, partial(self.say, 5))
        self.say(30, "Making a template: waiting for the guest to come to rest")
        await unless_ended(vm, vm.agent.ask("rest", timeout_s=limit_s))
        self.say(60, "Making a template: saving the machine")
        try:
            return await migrate.save(vm.qmp)
        except QmpError as error:
            raise TemplateInvalid(f"QEMU does not save the machine: {error}.") from None

    async def launch(self) -> process.ProcessId:
        ground, memory = self.ground, str(self.result.memory)
        view = View(
            vm=str(self.room.qemu),
            workspace=str(self.empty),
            files=(
                *image_files(self.image),
                Mount("bind", memory, f"{template.FOLDER}/{self.result.memory.name}"),
            ),
            kvm=ground.accelerator is Accelerator.KVM,
            network_namespace=ground.own_network,
        )

        def describe(seen: Mapping[str, str], ends: Ends) -> Machine:
            return template.mold(
                ground.machine(self.image, NOTHING, Anywhere(seen), ends),
                memory=seen[memory],
                empty=seen[str(self.empty)],
                network=ends.network,
            )

        return await launch(
            qemu=ground.qemu, box=ground.box, what=view, describe=describe, room=self.room,
            lock_fd=self.lock, tied=True,
        )  # fmt: skip

    def say(self, percentage: int, message: str) -> None:
        self.report(Progress("template", message, percentage))


async def end_orphans(layout: Layout) -> None:
    """End machines whose maker was killed; the next build sweeps their folders."""
    with suppress(OSError):
        for folder in layout.staging.iterdir():
            try:
                lock = locks.acquire(folder / MAKER, make=False)
            except FileNotFoundError:
                continue
            if lock is None:
                continue
            try:
                for pid in await anyio.to_thread.run_sync(locks.holders, folder / staging.LOCK):
                    if pid != os.getpid() and (found := process.identify(pid)) is not None:
                        log.info("ending a machine whose maker was killed: %d", pid)
                        found.kill()
            finally:
                os.close(lock)
