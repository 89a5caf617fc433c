"""What a supervisor is asked to start, and what it notes for its successor."""

from __future__ import annotations

import json

from attrs import field, frozen

from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Home, Layout, Room
from sandbox_rpc.host.process import ProcessId
from sandbox_rpc.protocol import convert
from sandbox_rpc.qemu.machine import Accelerator

START_LIMIT_S = {Accelerator.KVM: 60.0, Accelerator.TCG: 300.0}
"""From QEMU's start to the proven login."""
STOP_LIMIT_S = {Accelerator.KVM: 15.0, Accelerator.TCG: 60.0}
"""For an orderly shutdown, before QEMU is ended."""


@frozen
class Place:
    """Which sandbox, and where its files lie."""

    layout: Layout
    name: str

    @property
    def home(self) -> Home:
        return self.layout.home(self.name)

    @property
    def room(self) -> Room:
        return self.layout.room(self.name)


@frozen
class StartRequest:
    """A sandbox to start, with all settings decided."""

    workspace: str
    """Real path."""
    settings: Settings
    masks: list[str] = field(factory=list)
    """Real paths below the workspace that QEMU must not see."""
    warnings: list[str] = field(factory=list)
    """What the settings had to say."""


@frozen
class Launch:
    """What the next supervisor needs to take a machine over."""

    request: StartRequest
    accelerator: Accelerator
    guest_ssh_port: int
    host_key: str
    """Public host key: type and base64."""
    own_network: bool = False
    """Whether a network process is QEMU's peer."""
    pins: list[tuple[str, int]] = field(factory=list)
    """Private addresses and ports of registries that the guest reaches."""
    agent: bool = True
    """Whether our agent is in the guest."""
    foreign: bool = False
    """Whether the image is somebody else's, and wants DHCP."""
    environment: dict[str, str] = field(factory=dict)
    """Variables of a guest without the agent."""
    template: str | None = None
    """Key of the template it goes on from; None: it boots a kernel."""
    cold_reason: str | None = None
    """Why it does, where it could have started from a template."""
    process: ProcessId | None = None
    """QEMU; None for the instant between its start and the note of it."""

    @property
    def start_limit_s(self) -> float:
        """Seconds from QEMU's start to the proven login."""
        return self.request.settings.start_timeout_s or START_LIMIT_S[self.accelerator]

    @property
    def stop_limit_s(self) -> float:
        """Seconds for an orderly shutdown."""
        return self.request.settings.stop_timeout_s or STOP_LIMIT_S[self.accelerator]


def note(room: Room, launch: Launch) -> None:
    """Write the note."""
    files.replace(room.launch, convert.dumps(launch))


def noted(room: Room) -> Launch | None:
    """The note of the previous supervisor; None where there is none or it is damaged."""
    try:
        return convert.from_wire(json.loads(room.launch.read_bytes()), Launch)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
