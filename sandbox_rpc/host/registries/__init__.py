"""Where this host gets its packages from, and whose certificates it trusts for that.

Read at run time from the configuration of the host's own apt, pip, npm, cargo and go, so that no
address of a registry is written down in this program and a company's mirrors are followed without a
setting. Nothing here starts a tool but `apt-config`, which takes some milliseconds.

What leaves this room has no user names, passwords or tokens in it: `url.clean` is the only way to
make a `Registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from sandbox_rpc.host.registries import apt, cargo, certificates, go, npm, pip
from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Registry

T = TypeVar("T")


@frozen
class Found:
    """What this host's tools are configured with."""

    registries: tuple[Registry, ...]
    """Without doubles, in the order of the tools' own preference."""
    certificates: tuple[bytes, ...]
    """Authorities that the host trusts beyond its distribution's: X.509, DER."""
    apt_options: tuple[str, ...]
    """Lines of apt.conf without which fetching from these places fails."""
    warnings: tuple[str, ...]
    """What could not be read or may not leave the host, as sentences."""


def read(environment: Mapping[str, str], root: Path = Path("/")) -> Found:
    """Read it all, for a program with this environment; some 20 ms. Never fails."""
    sources = Sources(environment, root)
    apt_found = _guarded(sources, "apt", apt.read, apt.Apt((), ()))
    registries = list(apt_found.registries)
    for name, look in (
        ("pip", pip.read),
        ("npm", npm.read),
        ("cargo", cargo.read),
        ("go", go.read),
    ):
        registries += _guarded(sources, name, look, [])
    nothing: tuple[bytes, ...] = ()
    authorities = _guarded(sources, "certificates", certificates.read, nothing)
    return Found(
        registries=tuple(dict.fromkeys(registries)),
        certificates=authorities,
        apt_options=apt_found.options,
        warnings=tuple(dict.fromkeys(sources.warnings)),
    )


def _guarded(sources: Sources, name: str, look: Callable[[Sources], T], nothing: T) -> T:
    """What a look finds. Files of other programs can be wrong in ways nobody has thought of, and
    none of them may keep a sandbox from starting."""
    try:
        return look(sources)
    except Exception as error:
        sources.warn(
            f"The host's configuration of {name} was not understood: {type(error).__name__}."
        )
        return nothing
