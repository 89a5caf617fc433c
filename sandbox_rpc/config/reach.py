"""The rows of the table of settings that say what the guest can reach."""

from __future__ import annotations

from sandbox_rpc.config.choices import Network, ProxyBackend
from sandbox_rpc.config.setting import Folder, Kind, Setting

REACH: tuple[Setting, ...] = (
    Setting(
        key="network",
        kind=Kind.CHOICE,
        choices=Network,
        default=Network.OPEN,
        loosest_first=(Network.OPEN, Network.PROXY, Network.OFFLINE),
        folder=Folder.TIGHTEN,
        flag="--network",
        shortcuts=(("--proxy", Network.PROXY),),
        help="what the guest can reach",
        doc="`open` is the internet without the host: neither its loopback nor its own addresses "
        "nor private networks. `proxy` is what the sandbox's allowlist names (`sandbox proxy`), "
        "over HTTP and TLS only, and not even a name server. `offline` is nothing; SSH comes in "
        "all the same.",
    ),
    Setting(
        key="allow.addresses",
        kind=Kind.TEXT,
        default="",
        pattern=r"[0-9./:]+(,[0-9./:]+)*",
        pattern_hint="Write addresses or ranges, each with a port or without, with commas between "
        "them: 192.168.1.7:5432,10.1.0.0/16.",
        folder=Folder.TRUST,
        flag="--allow-address",
        is_list=True,
        metavar="LIST",
        help="private addresses the guest reaches in the open network",
        doc="With commas between them, or the flag several times. A range opens neither the host's "
        "own addresses nor those at which clouds hand out credentials; these open by their exact "
        "address.",
    ),
    Setting(
        key="allow.host_ports",
        kind=Kind.TEXT,
        default="",
        pattern=r"[0-9]{1,5}(,[0-9]{1,5})*",
        pattern_hint="Write port numbers with commas between them: 5432,6379.",
        folder=Folder.TRUST,
        flag="--allow-host-port",
        is_list=True,
        metavar="LIST",
        help="ports of the host's loopback the guest reaches as 10.0.2.2",
        doc="With commas between them, or the flag several times. Only TCP, only in the open "
        "network. A program in the guest connects to 10.0.2.2, since 127.0.0.1 is the guest "
        "itself.",
    ),
    Setting(
        key="proxy.ports",
        kind=Kind.TEXT,
        default="80,443",
        pattern=r"[0-9]{1,5}(,[0-9]{1,5})*",
        pattern_hint="Write port numbers with commas between them: 80,443.",
        folder=Folder.TRUST,
        flag="--proxy-port",
        is_list=True,
        metavar="LIST",
        help="ports that a line of the allowlist without a port opens",
        doc="With commas between them, or the flag several times. A line of the allowlist can name "
        "another port for its host: `example.com:8443`.",
    ),
    Setting(
        key="proxy.backend",
        kind=Kind.CHOICE,
        choices=ProxyBackend,
        default=ProxyBackend.BUILTIN,
        folder=Folder.TRUST,
        flag="--proxy-backend",
        help="what the proxy is",
        doc="`builtin` is our own. `container` is tinyproxy in a container by podman or docker, "
        "with the same allowlist: it checks neither what TLS says nor where a name leads, audits "
        "nothing, and leaves out lines that it cannot express.",
    ),
    Setting(
        key="proxy.upstream",
        kind=Kind.TEXT,
        default="auto",
        # Its credentials go into a file: a setting is shown, and a flag is seen by everybody.
        pattern=r"auto|none|http://[A-Za-z0-9.\[\]:_-]+/?",
        pattern_hint="Write auto, none or http://HOST:PORT, without a password.",
        folder=Folder.NEVER,
        flag="--proxy-upstream",
        metavar="URL",
        help="proxy that this host itself goes through, for the sandbox's proxy to go through",
        doc="`auto` is the one that HTTPS_PROXY or HTTP_PROXY name where the sandbox is started, "
        "with its credentials and NO_PROXY; `none` is none. Names are then looked up by that "
        "proxy.",
    ),
    Setting(
        key="proxy.upstream_auth",
        kind=Kind.FILE,
        default="",
        folder=Folder.NEVER,
        flag="--proxy-upstream-auth",
        metavar="FILE",
        help="file with `USER:PASSWORD` for proxy.upstream",
        doc="Nobody but you may be able to read it. Not needed with `auto`, whose variables have "
        "them.",
    ),
    Setting(
        key="registries",
        kind=Kind.BOOL,
        default=True,
        loosest_first=(True, False),
        folder=Folder.TIGHTEN,
        flag="--registries",
        help="the guest gets packages from where this host's own tools get them",
        doc="Addresses in the configuration of the host's apt, pip, npm, cargo and go, and the "
        "certificate authorities it trusts beyond its distribution's, never a password or token. "
        "A registry at a private address can be reached, at exactly that address and port. "
        "Without it the guest's tools use what they have built in.",
    ),
)
"""A part of `settings.SETTINGS`, in the order of the documents."""
