"""The values that go over the wire and into `sandbox.json`; every field says what it means.

Names are snake_case here and camelCase on the wire. A field that has a default here may be absent
there.
"""

from __future__ import annotations

import enum

from attrs import field, frozen

LARGE = {"large": True}
"""Marks a whole number of up to 53 bits: an integer of LSP's has 32."""


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
    """`image`, then `template`, `restore`, `identity`, `login` of a warm start, or `disk`,
    `identity`, `qemu`, `kernel`, `boot`, `login`, `settle` of a cold one; there may come more."""
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
class Forward:
    """A port of this host that leads to one of the guest's, over TCP."""

    host: str
    """Loopback address of this host: 127.0.0.1."""
    host_port: int
    """Port on that address."""
    guest_port: int
    """Port in the guest."""


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
    revision: int = field(default=0, metadata=LARGE)
    """Grows with each change, also from one life to the next; 0: never changed."""
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
    persist: list[str] | None = None
    """Folders of the guest's home folder that outlive a stop."""
    ssh: Ssh | None = None
    """Present while it runs."""
    forwards: list[Forward] = field(factory=list)
    """Ports of this host that lead into the guest, beside that of `ssh`; they end with it."""
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
class Target:
    """Which sandbox is meant; one of the two."""

    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, or a folder inside the workspace of a running one."""


@frozen
class StartParams:
    """What to start, and how; a setting that is absent comes from the user's and folder's files."""

    workspace: str
    """Folder to share; inside a running sandbox's workspace it means that sandbox."""
    name: str | None = None
    """Name to give it; by default one from the folder's."""
    force: bool = False
    """Share even what is refused for good reasons (`/`, the home folder), and nest."""
    user_settings: dict[str, bool | float | str] | None = None
    """What the user has set in the client for all sandboxes, by the keys of `config.toml`
    (`workspace.read_only`). It counts as that file does and goes before it, so a folder's file may
    still tighten it; what is asked for at this start is in the other fields."""
    memory_mib: int | None = None
    """Memory of the guest in MiB."""
    cpus: int | None = None
    """Virtual processors of the guest."""
    disk_mib: int | None = None
    """Size of the guest's disk in MiB."""
    accelerator: str | None = None
    """`auto`, `kvm` or `tcg`."""
    image: str | None = None
    """Image the sandbox starts from."""
    pull_check: bool | None = None
    """Ask the registry once a day whether the image's tag has moved."""
    pull_key: str | None = None
    """File with the public key that must have signed the image; empty: none."""
    workspace_security: str | None = None
    """How the workspace keeps owners and modes: `none` or `mapped-xattr`."""
    workspace_read_only: bool | None = None
    """A workspace that the guest can only read."""
    protect: str | None = None
    """Paths in the workspace that the guest can only read, with commas between."""
    persist: str | None = None
    """Folders of the guest's home folder that outlive a stop, with commas between."""
    network: str | None = None
    """What the guest can reach: `open`, `proxy` or `offline`."""
    allow_addresses: str | None = None
    """Private addresses the guest reaches in the open network, with commas between."""
    allow_host_ports: str | None = None
    """Ports of the host's loopback the guest reaches as 10.0.2.2, with commas between."""
    proxy_ports: str | None = None
    """Ports that the allowlist opens where it names none, with commas between."""
    proxy_backend: str | None = None
    """What the proxy is: `builtin` or `container`."""
    proxy_upstream: str | None = None
    """Another proxy that the sandbox's proxy goes through: `auto`, `none` or http://HOST:PORT."""
    proxy_upstream_auth: str | None = None
    """File with `USER:PASSWORD` for it."""
    registries: bool | None = None
    """Whether the guest gets packages from where this host's own tools get them."""
    box_namespace: str | None = None
    """QEMU in namespaces of its own: `auto`, `require` or `off`."""
    box_filter: str | None = None
    """The filter that keeps setuid files out of the workspace: `auto`, `require` or `off`."""
    box_seccomp: str | None = None
    """QEMU's own system call filter: `auto`, `require` or `off`."""
    ssh_autostart: bool | None = None
    """SSH to a stopped sandbox's alias starts it."""
    ssh_agent_keys: bool | None = None
    """The keys of the user's SSH agent may log in."""
    warm: str | None = None
    """Whether the start goes on from a saved machine: `auto` or `never`."""
    start_timeout_s: float | None = None
    """Seconds a start may take; 0: by accelerator."""
    qemu_binary: str | None = None
    """The QEMU to run."""
    build_when: str | None = None
    """When the default image is built here: `unreachable`, `always` or `never`."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class StopParams:
    """Which sandbox to stop, and how."""

    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""
    force: bool = False
    """Do not ask the guest's programs."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class PortForwardParams:
    """A port of a guest to reach from this host; `name` or `workspace` says which guest."""

    guest_port: int
    """Port in the guest; nothing needs to listen there yet."""
    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""
    host_port: int = 0
    """Port on this host's loopback; 0: the guest's number where that is free, else any."""


@frozen
class PortCloseParams:
    """A forward to end; `name` or `workspace` says whose."""

    host_port: int
    """Its port on this host."""
    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""


@frozen
class PersistPutParams:
    """What to copy into the part of a guest's home folder that outlives a stop."""

    name: str
    """The sandbox; it need not run."""
    source: str
    """File or folder on this host."""
    target: str
    """Where to, relative to the home folder: below one of `Sandbox.persist`."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class PersistPutResult:
    """What became of it."""

    added: bool
    """Whether it was copied; else something was there already, and stays as it is."""


@frozen
class ListParams:
    """Which sandboxes to list."""

    stopped: bool = False
    """Also those that are stopped."""


class Verdict(enum.StrEnum):
    """How good a finding is."""

    OK = "ok"
    """Fine."""
    WARNING = "warning"
    """It works, but worse than it could."""
    ERROR = "error"
    """No sandbox can be started."""


@frozen
class Check:
    """One finding about this host."""

    id: str
    """Stable word for programs."""
    status: Verdict
    """How good it is."""
    message: str
    """What was found."""
    hint: str | None = None
    """What to do about it."""


@frozen
class Doctor:
    """All findings about this host."""

    ok: bool
    """Whether a sandbox can be started."""
    checks: list[Check]
    """In the order of their weight."""
