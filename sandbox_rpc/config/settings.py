"""The table of settings.

Flags, config.toml, sandbox.toml, the protocol's parameters, the editor's settings and
docs/settings.md all come from `SETTINGS`. A new row also needs its field in `values.Settings`; a
test compares them. `python docs/generate.py` then writes the document.
"""

from __future__ import annotations

from collections.abc import Mapping

from sandbox_rpc.config.choices import (
    Accelerator,
    BuildWhen,
    Need,
    Warm,
    WorkspaceSecurity,
)
from sandbox_rpc.config.reach import REACH
from sandbox_rpc.config.setting import Folder, Kind, Setting

_NEED_ORDER = (Need.OFF, Need.AUTO, Need.REQUIRE)

SETTINGS: tuple[Setting, ...] = (
    Setting(
        key="memory",
        kind=Kind.SIZE,
        default=2048,
        minimum=256,
        maximum=16 * 1024 * 1024,
        folder=Folder.TIGHTEN,
        flag="--memory",
        metavar="SIZE",
        commands=("start", "template build"),
        help="memory of the guest",
        doc="The host gives it page by page, as the guest first touches it.",
    ),
    Setting(
        key="cpus",
        kind=Kind.COUNT,
        default=2,
        minimum=1,
        maximum=255,
        folder=Folder.TIGHTEN,
        flag="--cpus",
        metavar="N",
        commands=("start", "template build"),
        help="virtual processors of the guest",
        doc="More than the host has makes the guest slower, not faster.",
    ),
    Setting(
        key="disk",
        kind=Kind.SIZE,
        default=20480,
        minimum=4096,
        maximum=64 * 1024 * 1024,
        folder=Folder.TIGHTEN,
        flag="--disk",
        metavar="SIZE",
        commands=("start", "template build"),
        help="size of the guest's disk",
        doc="A limit, not a reservation: the host's disk holds what the guest has written, and "
        "only until the sandbox stops. The workspace does not count.",
    ),
    Setting(
        key="accelerator",
        kind=Kind.CHOICE,
        choices=Accelerator,
        default=Accelerator.AUTO,
        folder=Folder.TRUST,
        flag="--accelerator",
        commands=("start", "template build"),
        help="what runs the guest's instructions",
        doc="`auto` uses KVM where it works and emulation (`tcg`) elsewhere, and says so; `kvm` "
        "fails where it does not work.",
    ),
    Setting(
        key="image",
        kind=Kind.TEXT,
        default="ghcr.io/narkatee/sandbox-kvm-image:latest",
        # It becomes an argument and a file name: no leading dash, no leading slash, no "..".
        pattern=r"(?!.*(\.\.|//))[A-Za-z0-9\[][A-Za-z0-9._/:@+\[\]-]{0,511}",
        pattern_hint="Write a reference: example.org/owner/image:tag, "
        "example.org/owner/image@sha256:..., or one that `sandbox image list` shows.",
        folder=Folder.TRUST,
        flag="--image",
        metavar="REF",
        commands=("start", "template build"),
        help="image the sandbox starts from",
        doc="One in a registry is pulled by the first start that needs it, and from then on used "
        "as it is: `sandbox image pull` takes what the tag means by then. A folder stays with the "
        "image it began with until somebody pulls or builds another one under this name, or this "
        "setting changes. `sandbox image list` shows what is there.",
    ),
    Setting(
        key="pull.check",
        kind=Kind.BOOL,
        default=True,
        loosest_first=(True, False),
        folder=Folder.TIGHTEN,
        flag="--pull-check",
        help="ask the registry once a day whether the image's tag has moved",
        doc="After a start has succeeded and without holding it up; the next one says so. Nothing "
        "is downloaded. Without it, `sandbox image list --check` asks.",
    ),
    Setting(
        key="pull.key",
        kind=Kind.FILE,
        default="",
        folder=Folder.NEVER,
        flag="--pull-key",
        metavar="FILE",
        commands=("start", "template build", "image pull"),
        help="public key that must have signed images from registries; empty: none",
        doc="As `cosign sign --key` of cosign 2 signs them; cosign 3 needs "
        "`--new-bundle-format=false` as well. An image that was pulled without it is asked for "
        "again. Images under a name without a registry (`local/...`), or that `image` names by a "
        "digest alone, are taken as they are. It should lie where no sandbox can write.",
    ),
    Setting(
        key="workspace.security",
        kind=Kind.CHOICE,
        choices=WorkspaceSecurity,
        default=WorkspaceSecurity.NONE,
        loosest_first=(WorkspaceSecurity.NONE, WorkspaceSecurity.MAPPED_XATTR),
        folder=Folder.TIGHTEN,
        flag="--workspace-security",
        help="how the workspace keeps the owners and modes that the guest sets",
        doc="`none` keeps them as they are and refuses the setuid bit. `mapped-xattr` keeps them "
        "in extended attributes that only the guest sees; symbolic links and executable bits "
        "then differ on the two sides, which git and npm notice.",
    ),
    Setting(
        key="workspace.read_only",
        kind=Kind.BOOL,
        default=False,
        loosest_first=(False, True),
        folder=Folder.TIGHTEN,
        flag="--read-only",
        help="a workspace that the guest can only read",
        doc="Enforced on the host, whatever root in the guest does.",
    ),
    Setting(
        key="protect",
        kind=Kind.TEXT,
        default="sandbox.toml,.mcp.json,.claude/settings.json,.claude/settings.local.json,"
        ".claude/hooks,.cursor/mcp.json,.cursor/hooks.json,.codex/config.toml,"
        ".gemini/settings.json,.vscode/mcp.json",
        # Below the workspace, without a way out of it.
        pattern=r"(?!(.*[,/])?\.{0,2}([,/]|$))[^\x00-\x1f]+",
        pattern_hint="Write paths in the workspace with commas between them: .git/hooks,.vscode.",
        folder=Folder.TIGHTEN,
        flag="--protect",
        is_list=True,
        metavar="LIST",
        help="files and folders in the workspace that the guest can only read",
        doc="With commas between them, or the flag several times. A list replaces the one before "
        "it; a folder's file must repeat all of that and may add to it. Only what is there when "
        "the sandbox starts can be protected: `sandbox changes` shows what came later. The default "
        "is what coding agents on the host obey, and `sandbox.toml`. Good candidates are "
        "`.git/hooks,.git/config,.vscode,.envrc`.",
    ),
    Setting(
        key="persist",
        kind=Kind.TEXT,
        default=".vscode-server,.vscode-server-insiders,.vscode-server-oss,.vscodium-server,"
        ".cursor-server,.windsurf-server,.cache/JetBrains",
        # Below the home folder, without a way out; not the workspace, not the keys that let us in.
        pattern=r"(?!(.*[,/])?\.{0,2}([,/]|$))(?!(.*,)?(workspace|\.ssh)([,/]|$))"
        r"[A-Za-z0-9._@+/,-]+",
        pattern_hint="Write folders of the guest's home folder with commas between them: "
        ".vscode-server,.cache/pip.",
        folder=Folder.TRUST,
        flag="--persist",
        is_list=True,
        metavar="LIST",
        help="folders of the guest's home folder that outlive a stop",
        doc="With commas between them, or the flag several times. This host keeps them for each "
        "sandbox by itself, until `sandbox forget`; no other sandbox ever sees them. The default "
        "is what remote editors install, so that a second start downloads nothing. Empty: "
        "nothing outlives a stop but the workspace.",
    ),
    *REACH,
    Setting(
        key="box.namespace",
        kind=Kind.CHOICE,
        choices=Need,
        default=Need.AUTO,
        loosest_first=_NEED_ORDER,
        folder=Folder.TIGHTEN,
        flag="--box-namespace",
        help="QEMU in namespaces of its own, which show it almost none of the host's files",
        doc="`auto` where the host allows user namespaces, `require` refuses to start without "
        "them, `off` leaves them out.",
    ),
    Setting(
        key="box.filter",
        kind=Kind.CHOICE,
        choices=Need,
        default=Need.AUTO,
        loosest_first=_NEED_ORDER,
        folder=Folder.TIGHTEN,
        flag="--box-filter",
        help="a system call filter that keeps setuid files out of the workspace",
        doc="Values as for `box.namespace`.",
    ),
    Setting(
        key="box.seccomp",
        kind=Kind.CHOICE,
        choices=Need,
        default=Need.AUTO,
        loosest_first=_NEED_ORDER,
        folder=Folder.TIGHTEN,
        flag="--box-seccomp",
        help="QEMU's own system call filter (`-sandbox`)",
        doc="Values as for `box.namespace`.",
    ),
    Setting(
        key="ssh.autostart",
        kind=Kind.BOOL,
        default=True,
        loosest_first=(True, False),
        folder=Folder.TIGHTEN,
        flag="--ssh-autostart",
        help="SSH to a stopped sandbox's alias starts it",
        doc="So an editor window that reconnects finds it again. Without it, SSH to the alias of "
        "a stopped sandbox fails with a message.",
    ),
    Setting(
        key="ssh.agent_keys",
        kind=Kind.BOOL,
        default=True,
        loosest_first=(True, False),
        folder=Folder.TIGHTEN,
        flag="--ssh-agent-keys",
        help="the keys of the user's SSH agent may log in",
        doc="Beside the key that each sandbox has of its own. The agent itself is never forwarded.",
    ),
    Setting(
        key="warm",
        kind=Kind.CHOICE,
        choices=Warm,
        default=Warm.AUTO,
        loosest_first=(Warm.AUTO, Warm.NEVER),
        folder=Folder.TIGHTEN,
        flag="--warm",
        help="whether starts go on from a saved machine instead of booting",
        doc="`auto` makes a template, a booted and paused machine on disk, at the first start with "
        "an image and a size, and starts from it from then on; where that cannot be done, the "
        "start boots and says why. `never` always boots: sandboxes then have not even the layout "
        "of their kernels in common.",
    ),
    Setting(
        key="start.timeout",
        kind=Kind.SECONDS,
        default=0.0,
        maximum=86400,
        folder=Folder.TRUST,
        flag="--start-timeout",
        metavar="SECONDS",
        help="how long a start may take; 0: by accelerator",
        doc="Until a login over SSH has succeeded.",
    ),
    Setting(
        key="stop.timeout",
        kind=Kind.SECONDS,
        default=0.0,
        maximum=86400,
        folder=Folder.TRUST,
        flag="--stop-timeout",
        metavar="SECONDS",
        commands=("stop",),
        help="how long the guest may take to shut down; 0: by accelerator",
        doc="Then the machine is ended. The workspace is on the host and loses nothing.",
    ),
    Setting(
        key="qemu.binary",
        kind=Kind.PATH,
        default="",
        folder=Folder.NEVER,
        flag="--qemu",
        metavar="PATH",
        commands=("start", "template build"),
        help="the QEMU to run; empty: found on PATH",
        doc="QEMU 7.2 or newer. An absolute path, or a name that is looked up on PATH.",
    ),
    Setting(
        key="build.when",
        kind=Kind.CHOICE,
        choices=BuildWhen,
        default=BuildWhen.UNREACHABLE,
        folder=Folder.TRUST,
        flag="--build",
        help="when the default image is built on this machine instead of being pulled",
        doc="Only where it is needed and not there, and `image` has its default. `unreachable`: "
        "where its registry does not answer. What is built is `local/debian-13`; once it is there, "
        "it stands in without anyone being asked. Other images are never replaced by it.",
    ),
    Setting(
        key="build.mirror",
        kind=Kind.TEXT,
        default="",
        pattern=r"(https?|file|copy)://[^\s\"'\\]+",
        pattern_hint="Write a URL that starts with http:// or https://.",
        folder=Folder.NEVER,
        flag="--mirror",
        metavar="URL",
        commands=("image build",),
        help="Debian mirror that images are built from; empty: the host's own",
        doc="Named `build`, since `image` is taken by the reference.",
    ),
)
"""Every setting, in the order of the documents."""

BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
"""The rows by key."""

TABLES = frozenset(setting.path[:-1] for setting in SETTINGS if len(setting.path) > 1)
"""The TOML tables that hold settings."""
