"""OpenSSH client configuration: one Host block for each sandbox, strict, with the host key pinned.

While a sandbox runs, its block names the endpoint; when it does not, the block is a stub whose
ProxyCommand starts it, so that a window that reconnects, or "Open Recent", works.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from attrs import frozen

from sandbox_rpc.host import paths

USER = "dev"
LOOPBACK = "127.0.0.1"


@frozen
class Endpoint:
    """Where a running guest listens."""

    port: int
    host_key: str
    """Public host key: type and base64."""


def block(
    name: str,
    *,
    identity_file: Path,
    known_hosts: Path,
    endpoint: Endpoint | None,
    starter: list[str],
) -> str:
    """The Host block of a sandbox.

    Nothing of the user's own goes into the guest: no agent (also not with `ssh -A`), no X11, no
    other key, no shared connection; and the user's known_hosts is neither read nor written.
    """
    lines = [
        f"Host {name}",
        f"    HostKeyAlias {name}",
        f"    User {USER}",
        f"    IdentityFile {_quoted(identity_file)}",
        "    IdentitiesOnly yes",
        "    IdentityAgent none",
        f"    UserKnownHostsFile {_quoted(known_hosts)}",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    HostKeyAlgorithms ssh-ed25519",
        "    PasswordAuthentication no",
        "    KbdInteractiveAuthentication no",
        "    ForwardAgent no",
        "    ForwardX11 no",
        "    PermitLocalCommand no",
        "    ControlMaster no",
        "    ControlPath none",
        "    CanonicalizeHostname no",
    ]
    if endpoint is not None:
        lines += [f"    HostName {LOOPBACK}", f"    Port {endpoint.port}", "    ProxyCommand none"]
    else:
        # ssh expands % and hands the rest to a shell.
        command = shlex.join(starter).replace("%", "%%")
        lines += [f"    ProxyCommand {command}", "    ConnectTimeout 0"]
    return "\n".join(["# Written by sandbox-rpc; changes are lost.", *lines, ""])


def known_hosts_line(name: str, host_key: str) -> str:
    """The pinned key under the alias, so that it holds whatever the port."""
    return f"{name} {host_key}\n"


def index(names: Path) -> str:
    """The file that a user's own configuration includes."""
    return (
        "# Written by sandbox-rpc. To use plain `ssh sandbox-NAME`, put this at the top of\n"
        "# your ~/.ssh/config:  Include <the path of this file>\n"
        f"Include {_quoted(names / '*' / 'ssh_config')}\n"
    )


def alias_folder() -> Path | None:
    """The folder of a user who keeps one file for each host; None where there is none."""
    folder = os.environ.get("SSH_CONFIG_DIR")
    if folder:
        path = Path(folder)
    elif (home := paths.home()) is not None:
        path = home / ".ssh" / "config.d"
    else:
        return None
    return path if path.is_dir() else None


def alias_file(folder: Path, name: str) -> Path:
    """The sandbox's file in that folder; the seed's name for it."""
    return folder / f"alias-{name}.conf"


def _quoted(path: Path) -> str:
    # ssh_config knows double quotes, and expands % in some values.
    return '"' + str(path).replace("%", "%%") + '"'
