"""Who a guest is: one value, one document, carried by SMBIOS at a cold boot, else by the agent."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping

from attrs import field, frozen

from sandbox_rpc.guest.packages import Packages
from sandbox_rpc.protocol.errors import SettingInvalid

MAX_CREDENTIALS = 60_000
"""Bytes of SMBIOS strings; QEMU refuses to start when the whole table passes 65535."""
ENTROPY = 64
"""Bytes of randomness that a restored guest is given."""
WORKSPACE_MOUNT = "trans=virtio,version=9p2000.L,msize=512000,access=client,cache=mmap,directio"
"""9p options: never access=any (files become root's), never cache=none (no shared mmap), never
cache=loose (edits on the host are not seen), never cache=mmap alone: the answer to one program's
stat then cuts off what another has just written and the kernel still holds (Linux 6.12, measured
in docs/decisions/workspace.md). directio: what write() took is on the host when it returns."""
PERSIST_MOUNT = WORKSPACE_MOUNT
"""The same for the folder that outlives a stop."""


@frozen
class Identity:
    """What makes this guest this sandbox."""

    hostname: str
    machine_id: str
    """32 hexadecimal digits."""
    authorized_keys: tuple[str, ...]
    """Public keys that may log in as dev."""
    host_key: str = field(repr=False)
    """The SSH host key, private, OpenSSH format; the host has pinned its public half."""
    host_key_file: str | None = None
    """Where the image's own sshd reads the host key, beside the usual place."""
    environment: Mapping[str, str] = field(factory=dict)
    """Variables for every session and service."""
    workspace: str | None = WORKSPACE_MOUNT
    """9p mount options of the workspace; None: nothing is shared."""
    persist: tuple[str, ...] = ()
    """Folders of dev's home folder that outlive a stop."""
    uid: int | None = None
    """Other uid for dev, where QEMU could not be given a user namespace."""
    gid: int | None = None
    packages: Packages = field(factory=Packages)
    """Where packages come from; its variables are in `environment` already."""
    router: str | None = None
    """IPv4 address; empty: none; None: the network's own."""
    dns: str | None = None
    """The same for the name server."""


def hostname_of(name: str) -> str:
    """A sandbox's name as a host name: at most 63 letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)[:63].strip("-") or "sandbox"


def proxy_environment(url: str) -> dict[str, str]:
    """The variables by which programs in the guest learn of a proxy."""
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    local = "localhost,127.0.0.1,::1"
    return {**dict.fromkeys(names, url), "no_proxy": local, "NO_PROXY": local}


def document(identity: Identity) -> bytes:
    """The agent's identity document: lines of a key and its value in base64."""
    values: dict[str, str | None] = {
        "hostname": identity.hostname,
        "machine_id": identity.machine_id,
        "authorized_keys": "".join(f"{key}\n" for key in identity.authorized_keys),
        "ssh_host_ed25519_key": identity.host_key,
        "ssh_host_key_file": identity.host_key_file,
        "environment": "".join(f"{k}={v}\n" for k, v in sorted(identity.environment.items())),
        "uid": None if identity.uid is None else str(identity.uid),
        "gid": None if identity.gid is None else str(identity.gid),
        "workspace": identity.workspace,
        "persist": "\n".join([PERSIST_MOUNT, *identity.persist]) if identity.persist else None,
        "router": identity.router,
        "dns": identity.dns,
        **_told(identity.packages),
    }
    lines = {key: value.encode() for key, value in values.items() if value is not None}
    # As DER: text would be written in base64 twice.
    lines["certificates"] = b"".join(identity.packages.certificates)
    return b"".join(
        f"{key} ".encode() + base64.b64encode(value) + b"\n"
        for key, value in lines.items()
        if value or key != "certificates"
    )


def renewed(identity: Identity, *, now: float, entropy: bytes) -> bytes:
    """The document for a guest that was restored, and remembers what its template was.

    `now` is the time, seconds since 1970, to be taken when the document is sent; `entropy` are
    `ENTROPY` random bytes of the host.
    """
    values = {
        "entropy": entropy,
        "time": f"{now:.6f}".encode(),
        "boot_id": str(uuid.uuid4()).encode(),
        "product_uuid": str(uuid.uuid4()).encode(),
    }
    lines = (f"{key} ".encode() + base64.b64encode(value) + b"\n" for key, value in values.items())
    return b"".join(lines) + document(identity)


def _told(packages: Packages) -> dict[str, str]:
    values = {f"file:{path}": content for path, content in sorted(packages.files.items())}
    if packages.hosts:
        values["hosts"] = "".join(f"{address} {name}\n" for address, name in packages.hosts)
    if packages.apt_mirrors:
        mirrors = sorted(packages.apt_mirrors.items())
        values["apt_mirrors"] = "".join(f"{archive} {url}\n" for archive, url in mirrors)
    return values


def credentials(identity: Identity) -> dict[str, bytes]:
    """The systemd credentials of a cold boot, by name.

    Host name and machine id are given to PID 1 as well, so that the journal is right from its
    first line.

    Raises:
        SettingInvalid: they do not fit into SMBIOS.
    """
    values = {
        "system.hostname": identity.hostname.encode(),
        "system.machine_id": identity.machine_id.encode(),
        "sandbox.identity": document(identity),
    }
    size = sum(len(smbios(name, value)) for name, value in values.items())
    if size > MAX_CREDENTIALS and size - MAX_CREDENTIALS < _cost(identity.packages):
        raise SettingInvalid(
            f"The guest's identity takes {size} bytes, {MAX_CREDENTIALS} is the limit.",
            hint="This host's package configuration and SSH agent are too much together: set "
            "registries = false or ssh.agent_keys = false.",
            setting="registries",
        )
    if size > MAX_CREDENTIALS:
        raise SettingInvalid(
            f"The guest's identity takes {size} bytes, {MAX_CREDENTIALS} is the limit.",
            hint="The SSH agent holds too many keys: set ssh.agent_keys = false.",
            setting="ssh.agent_keys",
        )
    return values


def _cost(packages: Packages) -> int:
    """Bytes of SMBIOS strings that packages take up."""
    size = sum(map(len, packages.certificates)) + sum(map(len, _told(packages).values()))
    return size * 16 // 9


def smbios(name: str, value: bytes) -> bytes:
    """The SMBIOS type 11 string that systemd in the guest reads as a credential."""
    return f"io.systemd.credential.binary:{name}=".encode() + base64.b64encode(value)
