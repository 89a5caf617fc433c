"""Every folder and file name this program uses, and why it is where it is.

<cache base>/                    SANDBOX_CACHE_BASE, $XDG_CACHE_HOME/sandbox, ~/.cache/sandbox
├─ ssh_config                    includes every sandbox's ssh_config; the user's includes it
├─ names/                        what outlives a stop
│  ├─ lock                       held while a name is given out
│  ├─ by-path/<sha256>           real path of a workspace → name
│  └─ <name>/                    `Home`
├─ kvm-vms/<name>/               what ends with the virtual machine: `Room`
│  └─ qemu/                      the only part of it that QEMU sees
├─ sandbox-proxy/<name>/         `ProxyHome`: allowlist and audit of its proxy; outlive a stop too
├─ kvm-cache/                    images and templates
│  ├─ images/<hex>/              one image, immutable: disk.qcow2 vmlinuz initrd image.json
│  ├─ refs/<reference>.json      readable name → digest
│  ├─ templates/<key>/           one template: `TemplateFolder`
│  ├─ templates/<key>.lock       held by its maker, while others wait
│  ├─ staging/<random>/          images and templates in the making; `lock` is held by the maker
│  ├─ ingest/<hex>.partial       a download so far; `<hex>.lock` is held by who adds to it
│  ├─ lock                       held while a reference or an image changes
│  └─ build.lock                 held by the start that builds the default image
└─ probes/                       what the installed QEMU and this kernel can do, remembered
<config>/                        $XDG_CONFIG_HOME/sandbox, else ~/.config/sandbox
├─ config.toml                   the user's settings
└─ trusted/<sha256>.json         folders whose sandbox.toml the user has accepted
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from attrs import frozen

from sandbox_rpc.host.bases import cache_base as cache_base
from sandbox_rpc.host.bases import config_base as config_base
from sandbox_rpc.host.bases import config_file as config_file
from sandbox_rpc.host.bases import home as home
from sandbox_rpc.host.proxyhome import ProxyHome as ProxyHome  # names of files, too

FOLDER_FILE = "sandbox.toml"
"""Settings that a workspace brings along; the guest can write it, so it may only tighten."""


def path_digest(path: str) -> str:
    """A file name for a path of any length and content."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def trust_file(workspace: str) -> Path:
    """Which content of a workspace's file the user has accepted."""
    return config_base() / "trusted" / f"{path_digest(workspace)}.json"


@frozen
class Home:
    """What is remembered of one sandbox between its lives."""

    folder: Path

    @property
    def record(self) -> Path:
        """Name, workspace, last port."""
        return self.folder / "record.json"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the one supervisor from before QEMU exists."""
        return self.folder / "supervisor.lock"

    @property
    def vm_lock(self) -> Path:
        """Held by QEMU alone: held means the virtual machine is alive."""
        return self.folder / "vm.lock"

    @property
    def ssh_config(self) -> Path:
        """The alias: the real endpoint while it runs, a stub that starts it when it does not."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The pinned host key of the present life."""
        return self.folder / "known_hosts"

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor's socket, `supervisor/1`; not in the room, which comes and goes."""
        return self.folder / "supervisor.sock"

    @property
    def supervisor_log(self) -> Path:
        """What the present or last supervisor had to say."""
        return self.folder / "supervisor.log"

    @property
    def persist(self) -> Path:
        """Folders of the guest's home folder that outlive a stop; the guest writes it, so nothing
        of ours follows what it finds there.
        """
        return self.folder / "persist"

    @property
    def started(self) -> Path:
        """When the present or last life began, and what the workspace was like."""
        return self.folder / "started.json"

    @property
    def last(self) -> Path:
        """Logs of a life that ended badly: console.log, qemu.log."""
        return self.folder / "last"

    @property
    def client_key(self) -> Path:
        """Our own key into this sandbox.

        It outlives a stop, since ssh reads it before the stub's ProxyCommand has started the
        machine.
        """
        return self.folder / "id_ed25519"

    @property
    def client_key_public(self) -> Path:
        """Its public half."""
        return self.folder / "id_ed25519.pub"


@frozen
class Room:
    """The files of one running virtual machine; gone when it has stopped."""

    folder: Path

    @property
    def state(self) -> Path:
        """The public `Sandbox` value, replaced atomically at each change."""
        return self.folder / "sandbox.json"

    @property
    def launch(self) -> Path:
        """What the next supervisor needs to take the machine over."""
        return self.folder / "launch.json"

    @property
    def qmp_socket(self) -> Path:
        """QEMU's control socket, one client: the supervisor."""
        return self.folder / "qmp.sock"

    @property
    def agent_socket(self) -> Path:
        """The guest agent's virtio-serial port, one client: the supervisor."""
        return self.folder / "agent.sock"

    @property
    def serial_socket(self) -> Path:
        """The serial port, one client: the supervisor."""
        return self.folder / "serial.sock"

    @property
    def network_socket(self) -> Path:
        """QEMU's end of the guest's network cable, one client: the network process."""
        return self.folder / "net.sock"

    @property
    def network_control(self) -> Path:
        """The network process's own socket: status, forwards."""
        return self.folder / "netd.sock"

    @property
    def network_log(self) -> Path:
        """The network process's stdout and stderr."""
        return self.folder / "netd.log"

    @property
    def ssh_socket(self) -> Path:
        """The guest's SSH without a port: `ProxyCommand socat - UNIX:...`."""
        return self.folder / "ssh.sock"

    @property
    def proxy_socket(self) -> Path:
        """Where the allowlist's proxy listens; in a folder that the network process sees."""
        return self.folder / "proxy" / "proxy.sock"

    @property
    def proxy_control(self) -> Path:
        """The proxy's own socket: status, reload."""
        return self.folder / "proxyd.sock"

    @property
    def proxy_log(self) -> Path:
        """The proxy's stdout and stderr."""
        return self.folder / "proxyd.log"

    @property
    def proxy_wish(self) -> Path:
        """What a proxy is started with, for the next one; may hold a password of another proxy."""
        return self.folder / "proxyd.json"

    @property
    def console_socket(self) -> Path:
        """The serial console, served by the supervisor to any number of clients."""
        return self.folder / "console.sock"

    @property
    def events(self) -> Path:
        """One JSON line for each change."""
        return self.folder / "events.jsonl"

    @property
    def qemu_log(self) -> Path:
        """QEMU's stdout and stderr."""
        return self.folder / "qemu.log"

    @property
    def qemu_pid(self) -> Path:
        """For scripts; liveness is the lock."""
        return self.folder / "qemu.pid"

    @property
    def ssh_port(self) -> Path:
        """For scripts: the loopback port of the guest's SSH."""
        return self.folder / "ssh.port"

    @property
    def workspace_path(self) -> Path:
        """For scripts: the shared folder."""
        return self.folder / "workspace.path"

    @property
    def qemu(self) -> Path:
        """QEMU's working directory, and all it may write of ours."""
        return self.folder / "qemu"

    @property
    def overlay(self) -> Path:
        """The guest's disk: what differs from the image."""
        return self.qemu / "overlay.qcow2"

    @property
    def console_log(self) -> Path:
        """All console output since power-on, written by QEMU itself."""
        return self.qemu / "console.log"


@frozen
class TemplateFolder:
    """The files of one template."""

    folder: Path

    @property
    def facts(self) -> Path:
        """What it was made from, and how its files were when they were finished."""
        return self.folder / "template.json"

    @property
    def memory(self) -> Path:
        """The guest's memory, mapped copy-on-write by each machine; never written again."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        """The rest of the machine: processors and devices, as QEMU's migration stream."""
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        """What the boot has written, over the image's disk."""
        return self.folder / "disk.qcow2"

    @property
    def blank(self) -> Path:
        """An empty overlay of the same size, to be copied."""
        return self.folder / "blank.qcow2"

    @property
    def used(self) -> Path:
        """Its time is that of the last start."""
        return self.folder / "used"


CREDENTIAL_PREFIX = "credential."
"""SMBIOS credential files, relative to `Room.qemu`; removed once QEMU has read them."""


@frozen
class Layout:
    """All paths below one cache base."""

    base: Path

    @classmethod
    def of_user(cls) -> Layout:
        """The layout of the user who runs this."""
        return cls(cache_base())

    @property
    def names(self) -> Path:
        return self.base / "names"

    @property
    def names_lock(self) -> Path:
        return self.names / "lock"

    @property
    def by_path(self) -> Path:
        return self.names / "by-path"

    def name_of_path(self, real_path: str) -> Path:
        """The file that holds the name of the sandbox of this workspace."""
        return self.by_path / path_digest(real_path)

    @property
    def ssh_config(self) -> Path:
        return self.base / "ssh_config"

    def home(self, name: str) -> Home:
        return Home(self.names / name)

    @property
    def rooms(self) -> Path:
        return self.base / "kvm-vms"

    def room(self, name: str) -> Room:
        return Room(self.rooms / name)

    @property
    def proxies(self) -> Path:
        return self.base / "sandbox-proxy"

    def proxy(self, name: str) -> ProxyHome:
        return ProxyHome(self.proxies / name)

    @property
    def cache(self) -> Path:
        return self.base / "kvm-cache"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def refs(self) -> Path:
        return self.cache / "refs"

    @property
    def staging(self) -> Path:
        return self.cache / "staging"

    @property
    def ingest(self) -> Path:
        return self.cache / "ingest"

    def partial(self, hex_digest: str) -> Path:
        return self.ingest / f"{hex_digest}.partial"

    def ingest_lock(self, hex_digest: str) -> Path:
        return self.ingest / f"{hex_digest}.lock"

    @property
    def cache_lock(self) -> Path:
        return self.cache / "lock"

    @property
    def build_lock(self) -> Path:
        """Held by the start that builds the default image for all that wait for it."""
        return self.cache / "build.lock"

    @property
    def templates(self) -> Path:
        return self.cache / "templates"

    def template(self, key: str) -> TemplateFolder:
        return TemplateFolder(self.templates / key)

    def template_lock(self, key: str) -> Path:
        return self.templates / f"{key}.lock"

    def template_failure(self, key: str) -> Path:
        """Why the last try to make it failed."""
        return self.templates / f"{key}.failed"

    @property
    def qemu_probe(self) -> Path:
        """What the installed QEMU can do."""
        return self.base / "probes" / "qemu.json"

    @property
    def box_probe(self) -> Path:
        """What this host can do to confine it."""
        return self.base / "probes" / "box.json"

    def make(self) -> None:
        """Make the folders that others are made in."""
        for folder in (self.base, self.names, self.by_path, self.rooms, self.cache):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.images, self.refs, self.staging, self.ingest, self.templates):
            folder.mkdir(mode=0o700, exist_ok=True)
