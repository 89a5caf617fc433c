"""Where a guest gets packages: the host's own registries, for its identity and its network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from ipaddress import AddressValueError, IPv4Address

import anyio.to_thread
from attrs import field, frozen

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.guest import packages
from sandbox_rpc.guest.packages import Packages
from sandbox_rpc.host import lookup, registries
from sandbox_rpc.host.registries import Found
from sandbox_rpc.network.address import METADATA, NEVER, obstacle


@frozen
class Supply:
    """What a start does with the host's registries."""

    packages: Packages = field(factory=Packages)
    """For the identity."""
    pins: tuple[tuple[str, int], ...] = ()
    """Private addresses and ports that the network has to let through."""
    warnings: tuple[str, ...] = ()


async def find(settings: Settings, environment: Mapping[str, str] = os.environ) -> Supply:
    """Read the host's configuration and look up the names in it; at most some 2 s, never fails.

    A supervisor has the environment of the client that made it start, so the variables are those
    of the terminal or editor in which somebody asked for the sandbox.
    """
    if not settings.registries or settings.network is Network.OFFLINE:
        return Supply()
    opens = settings.network is Network.OPEN
    return await anyio.to_thread.run_sync(partial(_find, dict(environment), opens=opens))


def _find(environment: Mapping[str, str], *, opens: bool) -> Supply:
    found = registries.read(environment)
    names = {registry.host for registry in found.registries} if opens else set()
    return supply(found, lookup.addresses(names), opens=opens)


def supply(found: Found, addresses: Mapping[str, tuple[str, ...]], *, opens: bool) -> Supply:
    """The supply from what was read and looked up; in the proxy's mode nothing is pinned. Pure."""
    pins: dict[tuple[str, int], None] = {}
    hosts: dict[tuple[str, str], None] = {}
    warnings = list(found.warnings)
    usable = []
    for registry in found.registries:
        known = addresses.get(registry.host, ())
        if opens and known and all(IPv4Address(one).is_loopback for one in known):
            if registry.configured:
                warnings.append(
                    f"This host's {registry.kind} registry {registry.host} is on its own loopback, "
                    "which the guest does not reach; the guest is not told of it."
                )
            continue
        usable.append(registry)
        private = [one for one in known if _is_private(one)]
        pins |= dict.fromkeys((one, registry.port) for one in private)
        # What the host's resolver or its /etc/hosts knows, the guest's may not; and it must be the
        # very address that is let through.
        if private and len(private) == len(known) and not _is_address(registry.host):
            hosts |= dict.fromkeys((one, registry.host) for one in private)
    return Supply(
        packages=packages.configure(
            usable,
            certificates=found.certificates,
            apt_options=found.apt_options,
            hosts=tuple(hosts),
        ),
        pins=tuple(pins),
        warnings=tuple(warnings),
    )


def _is_private(text: str) -> bool:
    """Whether an address has to be let through, and may be.

    Never loopback, nor where clouds hand out credentials: whoever answers the host's questions for
    names would open these to a guest.
    """
    address = IPv4Address(text)
    closed = any(address in network for network in (*NEVER, *METADATA))
    return not closed and obstacle(address) is not None


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True
