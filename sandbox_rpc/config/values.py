"""One value for each setting, as a start has decided them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from sandbox_rpc.config.choices import (
    Accelerator,
    BuildWhen,
    Need,
    Network,
    ProxyBackend,
    Warm,
    WorkspaceSecurity,
)
from sandbox_rpc.config.setting import Value
from sandbox_rpc.config.settings import BY_KEY


# ruff: noqa: RUF009  (the defaults are in the table, once)
def _of(key: str) -> Any:
    return field(default=BY_KEY[key].default)


@frozen(kw_only=True)
class Settings:
    """One value for each setting; what is not given has its default."""

    memory_mib: int = _of("memory")
    """Memory of the guest in MiB."""
    cpus: int = _of("cpus")
    """Virtual processors."""
    disk_mib: int = _of("disk")
    """Size limit of the guest's disk in MiB."""
    accelerator: Accelerator = _of("accelerator")
    """What runs the guest's instructions."""
    image: str = _of("image")
    """Reference of the image."""
    pull_check: bool = _of("pull.check")
    """Whether a registry is asked once a day if the tag has moved."""
    pull_key: str = _of("pull.key")
    """File with the public key that must have signed images; empty: none."""
    workspace_security: WorkspaceSecurity = _of("workspace.security")
    """How owners and modes in the workspace are kept."""
    workspace_read_only: bool = _of("workspace.read_only")
    """Whether the guest can only read the workspace."""
    protect: str = _of("protect")
    """Paths in the workspace that the guest can only read, with commas between."""
    persist: str = _of("persist")
    """Folders of dev's home folder that outlive a stop, with commas between."""
    network: Network = _of("network")
    """What the guest can reach."""
    allow_addresses: str = _of("allow.addresses")
    """Private addresses that the open network includes, with commas between."""
    allow_host_ports: str = _of("allow.host_ports")
    """Ports of the host's loopback that it includes, with commas between."""
    proxy_ports: str = _of("proxy.ports")
    """Ports that the allowlist opens where it names none, with commas between."""
    proxy_backend: ProxyBackend = _of("proxy.backend")
    """What the proxy is."""
    proxy_upstream: str = _of("proxy.upstream")
    """Another proxy to go through: `auto`, `none` or its address."""
    proxy_upstream_auth: str = _of("proxy.upstream_auth")
    """File with the credentials for it."""
    registries: bool = _of("registries")
    """Whether the guest gets packages from where the host does."""
    box_namespace: Need = _of("box.namespace")
    """Whether QEMU needs namespaces of its own."""
    box_filter: Need = _of("box.filter")
    """Whether QEMU needs our system call filter."""
    box_seccomp: Need = _of("box.seccomp")
    """Whether QEMU needs its own system call filter."""
    ssh_autostart: bool = _of("ssh.autostart")
    """Whether SSH to the alias of a stopped sandbox starts it."""
    ssh_agent_keys: bool = _of("ssh.agent_keys")
    """Whether the keys of the user's SSH agent may log in."""
    warm: Warm = _of("warm")
    """Whether starts go on from templates."""
    start_timeout_s: float = _of("start.timeout")
    """Longest start in seconds; 0: by accelerator."""
    stop_timeout_s: float = _of("stop.timeout")
    """Longest shutdown in seconds; 0: by accelerator."""
    qemu_binary: str = _of("qemu.binary")
    """Path or name of QEMU; empty: found on PATH."""
    build_when: BuildWhen = _of("build.when")
    """When the default image is built instead of being pulled."""
    build_mirror: str = _of("build.mirror")
    """Debian mirror for image builds; empty: the host's own."""

    @property
    def protected(self) -> list[str]:
        """Paths in the workspace that the guest can only read."""
        return [path for path in self.protect.split(",") if path]

    @property
    def persisted(self) -> list[str]:
        """Folders of dev's home folder that outlive a stop."""
        return [folder for folder in self.persist.split(",") if folder]

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Settings:
        """The settings with these checked values, by key; the rest has its default."""
        fields: dict[str, Any] = {BY_KEY[key].attribute: value for key, value in values.items()}
        return cls(**fields)
