"""What `ssh sandbox-NAME` means now: the running guest, or a stub that starts it."""

from __future__ import annotations

from contextlib import suppress

from sandbox_rpc.host import files
from sandbox_rpc.host.program import program
from sandbox_rpc.protocol.errors import SandboxError
from sandbox_rpc.ssh import config
from sandbox_rpc.supervisor.request import Place


def point(place: Place, endpoint: config.Endpoint | None) -> None:
    """Write the alias; None: the sandbox is stopped.

    The user's `~/.ssh/config.d/` gets a copy where it exists. That it cannot be written is no
    reason to fail a start: our own file has the alias too.
    """
    home = place.home
    text = config.block(
        place.name,
        identity_file=home.client_key,
        known_hosts=home.known_hosts,
        endpoint=endpoint,
        starter=starter(place),
    )
    if endpoint is not None:
        files.replace(home.known_hosts, config.known_hosts_line(place.name, endpoint.host_key))
    files.replace(home.ssh_config, text)
    files.replace(place.layout.ssh_config, config.index(place.layout.names))
    if (folder := config.alias_folder()) is not None:
        with suppress(SandboxError, OSError):
            files.replace(config.alias_file(folder, place.name), text)


def remove(place: Place) -> None:
    """Take the alias out of the user's folder."""
    if (folder := config.alias_folder()) is not None:
        with suppress(OSError):
            config.alias_file(folder, place.name).unlink(missing_ok=True)


def starter(place: Place) -> list[str]:
    """The command that starts the sandbox and joins stdin and stdout to its SSH port."""
    return ["env", f"SANDBOX_CACHE_BASE={place.layout.base}", *program(), "connect", place.name]
