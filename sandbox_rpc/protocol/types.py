"""The values that go over the wire and into `sandbox.json`; every field says what it means.

Names are snake_case here and camelCase on the wire. A field that has a default here may be absent
there.
"""

from __future__ import annotations

import enum

from attrs import field, frozen


class State(enum.StrEnum):
    """How far a sandbox has come."""

    STOPPED = "stopped"
    """No virtual machine."""
    STARTING = "starting"
    """On the way to a proven login."""
    RUNNING = "running"
    """The agent has reported, the workspace is mounted, a login has succeeded."""
    STOPPING = "stopping"
    """Being shut down."""
    LOST = "lost"
    """The virtual machine ended although nobody asked it to."""


class StartKind(enum.StrEnum):
    """What a start started from."""

    COLD = "cold"
    """A kernel."""
    WARM = "warm"
    """A template."""


@frozen
class Phase:
    """One part of a start."""

    name: str
    """`image`, `disk`, `identity`, `qemu`, `boot`, `login`."""
    seconds: float
    """How long it took."""


@frozen
class Startup:
    """How the present life began."""

    kind: StartKind
    """Cold or warm."""
    phases: list[Phase]
    """In the order they ran."""
    reason: str | None = None
    """Why it was not warm, where it was not."""


@frozen
class Ssh:
    """How the guest is reached; everything an SSH client needs."""

    host: str
    """Loopback address."""
    port: int
    """Port on that address."""
    user: str
    """Account in the guest."""
    alias: str
    """Host name that `config_file` defines: `ssh -F CONFIG_FILE ALIAS`."""
    config_file: str
    """OpenSSH client configuration that defines the alias."""
    known_hosts_file: str
    """The pinned host key."""
    identity_file: str
    """Private key that may log in."""
    host_key: str
    """The guest's public host key: type and base64."""


@frozen
class Layer:
    """One wall of the box around QEMU."""

    name: str
    """`namespace`, `filter`, `seccomp`."""
    active: bool
    """Whether it holds."""
    detail: str
    """What it does, or why it is missing."""


@frozen
class Failure:
    """Why a sandbox is lost."""

    kind: str
    """Stable error kind."""
    message: str
    """What happened."""
    hint: str | None = None
    """What to do about it."""


@frozen
class Sandbox:
    """One sandbox as every window sees it."""

    name: str
    """Unique for this user; also the guest's SSH alias."""
    state: State
    """How far it has come."""
    workspace: str
    """Real path of the shared folder."""
    revision: int = 0
    """Grows with each change."""
    phase: str | None = None
    """What a start is doing."""
    image: str | None = None
    """Reference of the image."""
    image_digest: str | None = None
    """Digest of the image."""
    accelerator: str | None = None
    """`kvm` or `tcg`."""
    network: str | None = None
    """What the guest can reach."""
    memory_mib: int | None = None
    """Guest memory in MiB."""
    cpus: int | None = None
    """Virtual processors."""
    disk_mib: int | None = None
    """Size limit of the guest's disk in MiB."""
    workspace_security: str | None = None
    """How 9p keeps owners and modes: `none` or `mapped-xattr`."""
    ssh: Ssh | None = None
    """Present while it runs."""
    console_socket: str | None = None
    """Unix socket of the serial console."""
    console_log: str | None = None
    """File with all console output since power-on."""
    box: list[Layer] = field(factory=list)
    """What stands between QEMU and the host."""
    pid: int | None = None
    """QEMU's process."""
    started_at: str | None = None
    """ISO 8601 time of the start."""
    startup: Startup | None = None
    """How the present life began."""
    warnings: list[str] = field(factory=list)
    """What the user should know: emulation, a missing layer, ignored settings."""
    failure: Failure | None = None
    """Why it is lost."""
    schema: int = 1
    """Version of this value as a state file."""


@frozen
class Image:
    """A disk with its kernel and initrd."""

    ref: str
    """Readable name."""
    digest: str
    """`sha256:…` over everything in it."""
    size_bytes: int
    """Room it takes on disk."""
    arch: str
    """`x86_64`, `aarch64`."""
    created_at: str
    """ISO 8601 time of the build."""
    in_use_by: list[str] = field(factory=list)
    """Running sandboxes that need it."""
