"""The box: what stands between QEMU and the host, beside the guest's virtual hardware. Pure.

    namespace   QEMU sees its own files and the workspace (`view`), its own processes, no capability
    filter      QEMU cannot make a setuid file (`filter`)
    seccomp     QEMU's own refusal of the system calls it does not need

Three ways to get there, all with no_new_privs, all without a tie to the parent's life:

    USER    bubblewrap in a user namespace in which QEMU's user is 1000, the guest's dev
    OWNER   root opens another user's folder: root's bubblewrap mounts, then QEMU becomes the owner,
            in a user namespace of the same kind
    PLAIN   no namespace to be had: `confine` starts QEMU with the host's paths

In USER and OWNER QEMU is process 1 of a pid namespace. bubblewrap's monitor holds no descriptor, so
a lock that QEMU inherits lives exactly as long as QEMU; killing the monitor does not end QEMU.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import frozen

from sandbox_rpc.protocol.errors import (
    PermissionDenied,
    QemuMissing,
    SettingInvalid,
    ToolMissing,
)
from sandbox_rpc.protocol.types import Layer
from sandbox_rpc.qemu.view import Mount, View, inherited, inside

SECCOMP = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""All that QEMU offers. It rules out -daemonize and `migrate exec:`, which QEMU would die of."""

AUTO, REQUIRE, OFF = "auto", "require", "off"


@frozen
class Policy:
    """What the user wants of each layer: `auto`, `require` or `off`."""

    namespace: str = AUTO
    filter: str = AUTO
    seccomp: str = AUTO


@frozen
class Finding:
    """Whether this host can do something."""

    works: bool
    detail: str = ""
    """Why not, as the rest of a sentence; empty where it works."""


@frozen
class Tools:
    """Programs that build the box; empty where they are not installed."""

    bwrap: str = ""
    setpriv: str = ""
    unshare: str = ""


@frozen
class Probe:
    """What this host can do for the box of one QEMU binary; can be kept as JSON."""

    tools: Tools
    user: Finding
    """Bubblewrap in a user namespace."""
    owner: Finding
    """Root's bubblewrap for another user."""
    filter: Finding
    seccomp: Finding
    system: tuple[Mount, ...]
    """Host folders and files that the programs need."""
    own_pids: bool = True
    """Whether a new /proc can be mounted, so that QEMU sees no process but itself."""
    sealed: bool = True
    """Whether bubblewrap can forbid more user namespaces inside the first one."""
    kvm_gid: int | None = None
    """Group of /dev/kvm."""


@frozen
class Account:
    """Numbers of a user on the host."""

    uid: int
    gid: int


class Variant(enum.StrEnum):
    """How QEMU is started."""

    USER = "user"
    OWNER = "owner"
    PLAIN = "plain"


@frozen
class Box:
    """One way to start QEMU on this host."""

    variant: Variant
    account: Account
    """Whom QEMU is on the host; the machine's folder must belong to them, images be readable."""
    changes_user: bool
    """Whether that is another one than the starter: then `Room.qemu` is to be given to them."""
    filtered: bool
    sandboxed: bool
    """Whether QEMU gets its own seccomp option."""
    layers: tuple[Layer, ...]
    """The same for the user's eyes."""
    probe: Probe

    @property
    def maps_to_dev(self) -> bool:
        """Whether the workspace's owner is uid 1000 in QEMU's eyes, hence the guest's dev."""
        return self.variant is not Variant.PLAIN

    @property
    def needs_mapped(self) -> bool:
        """Whether 9p must use `mapped-xattr`: a guest could else make setuid files of root."""
        return not self.filtered and self.account.uid == 0

    @property
    def has_monitor(self) -> bool:
        """Whether the started process is bubblewrap's monitor and QEMU's pid comes by `info_fd`."""
        return self.variant is not Variant.PLAIN

    def places(self, view: View, opened: Mapping[str, int] | None = None) -> dict[str, str]:
        """Host path → path as QEMU sees it, for the workspace and the files.

        PLAIN needs what `view.descriptors` opened, to be inherited by QEMU under the same numbers.
        Files in `view.vm` have relative names in every variant: it is the working directory.
        """
        if self.variant is Variant.PLAIN:
            return inherited(opened or {})
        return inside(view)

    @property
    def seccomp_args(self) -> tuple[str, ...]:
        """What QEMU's command line gets for the layer `seccomp`."""
        return SECCOMP if self.sandboxed else ()


def choose(policy: Policy, probe: Probe, *, owner: Account, me: Account) -> Box:
    """The box for a workspace of `owner`, opened by `me`.

    Raises:
        SettingInvalid: a policy is not one of the three words.
        ToolMissing, PermissionDenied, QemuMissing: a required layer cannot be had.
    """
    for name in ("namespace", "filter", "seccomp"):
        if (wish := getattr(policy, name)) not in (AUTO, REQUIRE, OFF):
            raise SettingInvalid(
                f"box.{name} cannot be {wish!r}.", hint="Use auto, require or off.", setting=name
            )
    changes_user = me.uid == 0 and owner.uid != 0
    account = owner if changes_user else me
    possible = probe.owner if changes_user else probe.user
    if policy.namespace == OFF or not possible.works:
        variant = Variant.PLAIN
    else:
        variant = Variant.OWNER if changes_user else Variant.USER
    _insist(policy.namespace, possible, "namespace", probe)
    _insist(policy.filter, probe.filter, "filter", probe)
    _insist(policy.seccomp, probe.seccomp, "seccomp", probe)
    filtered = policy.filter != OFF and probe.filter.works
    sandboxed = policy.seccomp != OFF and probe.seccomp.works
    return Box(
        variant,
        account,
        changes_user,
        filtered,
        sandboxed,
        (
            Layer("namespace", variant is not Variant.PLAIN,
                  _namespace_detail(variant, policy, probe, possible)),
            Layer("filter", filtered, "QEMU cannot make setuid files; no_new_privs"
                  if filtered else _missing("filter", policy.filter, probe.filter)),
            Layer("seccomp", sandboxed,
                  "QEMU may not start programs, gain privileges or change its scheduling"
                  if sandboxed else _missing("seccomp", policy.seccomp, probe.seccomp)),
        ),
        probe,
    )  # fmt: skip


def _missing(name: str, wish: str, finding: Finding) -> str:
    return f"switched off: box.{name} = off" if wish == OFF else finding.detail


def _namespace_detail(variant: Variant, policy: Policy, probe: Probe, possible: Finding) -> str:
    if variant is Variant.PLAIN:
        why = _missing("namespace", policy.namespace, possible)
        return f"{why}; QEMU sees the host's files as its user does; no_new_privs"
    processes = (
        "sees no other process"
        if probe.own_pids
        else "sees the host's processes, since the kernel refuses a new /proc here"
    )
    return (
        "QEMU sees the workspace and its own files only, "
        f"{processes}, has no capabilities; no_new_privs"
    )


def _insist(wish: str, finding: Finding, name: str, probe: Probe) -> None:
    if wish != REQUIRE or finding.works:
        return
    message = f"box.{name} = require, but {finding.detail}."
    hint = f"Set box.{name} = auto to start without this layer."
    if name == "seccomp":
        raise QemuMissing(message, hint=f"Use a QEMU with seccomp. {hint}")
    if name == "filter":
        raise ToolMissing(
            message, hint=f"Debian: apt-get install libseccomp2. {hint}", tool="libseccomp"
        )
    if not probe.tools.bwrap:
        raise ToolMissing(message, hint=f"Debian: apt-get install bubblewrap. {hint}", tool="bwrap")
    raise PermissionDenied(message, hint=f"`sandbox doctor` says more. {hint}")
