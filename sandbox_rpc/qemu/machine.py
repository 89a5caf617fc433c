"""A virtual machine as a value, before anything is started. Pure.

Paths are those that QEMU will see (`qemu/box.py` decides which), so nothing here is a path of the
host unless the box has no view of its own.
"""

from __future__ import annotations

import enum

from attrs import field, frozen


class Accelerator(enum.StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    """The host's processor."""
    TCG = "tcg"
    """Emulation: works everywhere, ten times slower."""


@frozen
class Disk:
    """The guest's only disk: an overlay on an immutable image."""

    overlay: str
    """qcow2 file that takes the writes."""
    base: str
    """qcow2 file below it, never written."""
    template: str | None = None
    """qcow2 file between the two, never written: what the template's boot has changed."""


@frozen
class Recorded:
    """Guest memory that becomes a template: whatever the guest stores reaches the file."""

    path: str
    """A file as large as the memory."""


@frozen
class Restored:
    """Guest memory of a template, copied on write; the machine waits for the rest of its state."""

    path: str
    """The template's memory file, mapped privately."""
    sealed: bool
    """Whether QEMU opens it for reading only, which it can from 8.2 on."""


@frozen
class Share:
    """A host folder in the guest over 9p."""

    tag: str
    """What the guest mounts."""
    path: str
    """The folder, as QEMU sees it."""
    security: str
    """`none`: owners and modes are real; `mapped-xattr`: kept in extended attributes."""
    read_only: bool = False


@frozen
class Forward:
    """A loopback port of the host that leads into the guest."""

    guest_port: int
    host_port: int = 0
    """0: QEMU takes a free one itself, so there is no gap in which another could."""


@frozen
class UserNetwork:
    """QEMU's own user-mode network stack."""

    forwards: tuple[Forward, ...] = ()
    restricted: bool = False
    """Whether the guest reaches nothing, forwards excepted."""


@frozen
class StreamNetwork:
    """Frames over a unix socket to a network process outside QEMU."""

    socket: int
    """Inherited descriptor of a listening unix socket; a peer that has died can be followed by
    another."""
    mtu: int | None
    """Told to the guest's driver; None: the driver's own, as with `UserNetwork`."""


@frozen
class Machine:
    """Everything QEMU is told."""

    name: str
    uuid: str
    arch: str
    """`x86_64` or `aarch64`."""
    machine_type: str
    """Versioned, so that a saved machine means the same to a newer QEMU."""
    accelerator: Accelerator
    memory_mib: int
    cpus: int
    kernel: str
    initrd: str
    kernel_command_line: str
    disk: Disk
    shares: tuple[Share, ...]
    network: UserNetwork | StreamNetwork
    qmp: int
    """Inherited descriptor of a listening unix socket: QEMU's control protocol.

    The sockets are made before QEMU, so connecting never races its start and needs no waiting; and
    their files lie outside its view."""
    agent: int
    """The same for the guest agent's virtio-serial port."""
    serial: int
    """The same for the serial port."""
    console_log: str
    memory: Recorded | Restored | None = None
    """Where the guest's memory is; None: QEMU's own."""
    credential_files: tuple[str, ...] = ()
    """SMBIOS type 11 strings, one file each: never on the command line, where all can read them."""
    fw_cfg: tuple[tuple[str, str], ...] = ()
    """Names below `opt/` and their files, for guests that look there."""
    seed: str | None = None
    """A small read-only disk with the identity, for cloud-init."""
    seccomp: tuple[str, ...] = field(default=())
    """QEMU's own `-sandbox` option, as the box decides."""


AGENT_PORT = "sandbox.agent"
"""Name of the virtio-serial port that the guest's agent opens."""
WORKSPACE_TAG = "workspace"
"""9p tag of the workspace."""
PERSIST_TAG = "persist"
"""9p tag of the folder that outlives a stop; always there, as the second share."""
MAX_KERNEL_COMMAND_LINE = 2047
"""Bytes; a longer one hangs an x86 guest before its first message, without a word."""
MAX_SMBIOS = 60_000
"""Bytes of SMBIOS strings; QEMU refuses to start when the whole table passes 65535."""
