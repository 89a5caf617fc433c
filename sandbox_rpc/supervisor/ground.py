"""What a start stands on: the QEMU, the box and the machine that its settings come to here."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path

import anyio
from attrs import frozen

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.images import recipe
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.network.settings import MTU
from sandbox_rpc.qemu import capabilities, template
from sandbox_rpc.qemu.box import Box
from sandbox_rpc.qemu.capabilities import Qemu
from sandbox_rpc.qemu.launch import Ends
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
from sandbox_rpc.supervisor import leftovers, reach
from sandbox_rpc.supervisor.enclose import check_xattr, choose_box
from sandbox_rpc.supervisor.introduce import NOTHING, Told, command_line
from sandbox_rpc.supervisor.request import Place, StartRequest


@frozen
class Ground:
    """Decided before anything is made for a sandbox."""

    place: Place
    request: StartRequest
    accelerator: Accelerator
    warnings: tuple[str, ...]
    """What the user should know about the accelerator and what cannot be protected."""
    qemu: Qemu
    box: Box
    security: str
    """9p security model of the workspace."""
    own_network: bool
    """Whether a network process is QEMU's peer."""
    protected: tuple[str, ...] = ()
    """Paths relative to the workspace that the guest can only read."""

    @property
    def settings(self) -> Settings:
        """Those of the request."""
        return self.request.settings

    def machine(
        self,
        image: StoredImage,
        told: Told,
        seen: Mapping[str, str],
        ends: Ends,
    ) -> Machine:
        """The virtual machine; pure but for its fresh UUID."""
        settings = self.settings
        return Machine(
            name=self.place.name,
            uuid=str(uuid.uuid4()),
            arch=self.qemu.arch,
            machine_type=self.qemu.machine_type,
            accelerator=self.accelerator,
            memory_mib=settings.memory_mib,
            cpus=settings.cpus,
            kernel=seen[str(image.kernel)],
            initrd=seen[str(image.initrd)],
            kernel_command_line=command_line(image),
            disk=Disk(overlay="overlay.qcow2", base=seen[str(image.disk)]),
            shares=(
                Share(
                    WORKSPACE_TAG,
                    seen[self.request.workspace],
                    self.security,
                    read_only=settings.workspace_read_only,
                ),
                # Its own, since a later life may have another setting for the workspace.
                Share(
                    PERSIST_TAG,
                    seen[str(self.place.home.persist)],
                    "mapped-xattr" if self.box.needs_mapped else "none",
                ),
            ),
            network=StreamNetwork(ends.network, MTU)
            if self.own_network
            else UserNetwork(restricted=settings.network is not Network.OPEN),
            qmp=ends.qmp,
            agent=ends.agent,
            serial=ends.serial,
            console_log="console.log",
            credential_files=told.credentials,
            fw_cfg=told.fw_cfg,
            seed=told.seed,
            seccomp=self.box.seccomp_args,
        )

    def view(self, image: StoredImage, *more: Mount) -> View:
        """What QEMU sees; `more` are further files."""
        return View(
            vm=str(self.place.room.qemu),
            workspace=self.request.workspace,
            files=(
                *image_files(image),
                Mount("bind", str(self.place.home.persist), PERSIST),
                *more,
            ),
            masks=masked(self.request.workspace, self.request.masks),
            protected=self.protected,
            kvm=self.accelerator is Accelerator.KVM,
            network_namespace=self.own_network,
        )

    def template_key(self, image: StoredImage) -> str:
        """The name of the template that this machine can start from."""
        machine = self.machine(image, NOTHING, Anywhere(), Ends(0, 0, 0, 0))
        origin = [
            self.qemu.build,
            image.digest,
            str(disk_mib(self.settings, image)),
            hashlib.sha256(recipe.AGENT.read_bytes()).hexdigest(),
            # QEMU's user owns the memory file.
            str(self.box.account.uid),
        ]
        if self.accelerator is Accelerator.KVM:
            origin.append(capabilities.host_processor())
        return template.key(machine, origin)


class Anywhere(dict[str, str]):
    """Where QEMU sees files, for those to whom it does not matter."""

    def __missing__(self, path: str) -> str:
        return ""


async def survey(place: Place, request: StartRequest, *, folder: str) -> Ground:
    """Look at this host; QEMU will be the user to whom `folder` belongs.

    Raises:
        KvmUnavailable, QemuMissing, ToolMissing, PermissionDenied, SettingInvalid: something that
            the settings insist on is not to be had.
    """
    settings = request.settings
    accelerator, warning = capabilities.choose(settings.accelerator, capabilities.probe_kvm())
    qemu = await anyio.to_thread.run_sync(
        capabilities.find_qemu, settings.qemu_binary, place.layout.qemu_probe
    )
    box = await choose_box(place.layout, qemu, settings, folder)
    security = "mapped-xattr" if box.needs_mapped else str(settings.workspace_security)
    protected, problems = leftovers.protected(request, box)
    return Ground(
        place, request, accelerator, tuple(filter(None, [warning, *problems])), qemu, box, security,
        reach.support().works, protected,
    )  # fmt: skip


def check_workspace(ground: Ground) -> None:
    """See that the workspace can be shared as the settings want.

    Raises:
        WorkspaceRefused: its file system cannot.
    """
    if ground.security == "mapped-xattr":
        check_xattr(ground.request.workspace, forced=ground.box.needs_mapped)


def disk_mib(settings: Settings, image: StoredImage) -> int:
    """Size of the guest's disk: at least that of its image."""
    return max(settings.disk_mib, image.disk_mib)


def image_files(image: StoredImage) -> tuple[Mount, ...]:
    """The files of an image, read-only, in QEMU's view."""
    paths: tuple[Path, ...] = (image.disk, image.kernel, image.initrd)
    return tuple(Mount("ro-bind", str(path), f"{IMAGE}/{path.name}") for path in paths)
