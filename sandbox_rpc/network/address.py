"""Which addresses belong to the internet at large. Pure.

`ipaddress.is_global` says so for most; it differs between versions of Python, and it counts as
global what leads back to this host or its provider: multicast, relays of old tunnels, IPv4 inside
IPv6, and the addresses at which clouds hand out credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NEVER: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")
)
"""Nothing a guest can have business with; no setting opens them."""
METADATA: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text)
    for text in ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32")
)
"""Link-local, and where clouds tell a host its secrets: opened by an exact address only."""
PRIVATE: Mapping[str, str] = {
    "10.0.0.0/8": "a private network",
    "172.16.0.0/12": "a private network",
    "192.168.0.0/16": "a private network",
    "100.64.0.0/10": "a provider's network",
    "192.0.0.0/24": "a reserved network",
    "192.0.2.0/24": "a network for examples",
    "192.88.99.0/24": "a relay of an old tunnel",
    "198.18.0.0/15": "a network for measurements",
    "198.51.100.0/24": "a network for examples",
    "203.0.113.0/24": "a network for examples",
}
"""Not part of the internet, written out so that no version of Python changes it."""
_PRIVATE = tuple((IPv4Network(text), why) for text, why in PRIVATE.items())

_NAT64 = IPv6Network("64:ff9b::/96")
_CLOSED6 = tuple(
    IPv6Network(text)
    for text in ("::/96", "64:ff9b:1::/48", "2001::/23", "fec0::/10", "fc00::/7", "fe80::/10",
                 "ff00::/8", "100::/64", "2001:db8::/32", "5f00::/16", "3fff::/20")
)  # fmt: skip


def obstacle(address: IPv4Address | IPv6Address | str) -> str | None:
    """Why an address is not part of the internet, as a phrase; None where it is.

    Raises:
        ValueError: not an address.
    """
    if isinstance(address, str):
        address = ip_address(address)
    if isinstance(address, IPv4Address):
        return _obstacle4(address)
    if address.ipv4_mapped is not None:
        return _obstacle4(address.ipv4_mapped) or "IPv4 written as IPv6"
    if address.sixtofour is not None:
        return _obstacle4(address.sixtofour)
    if address in _NAT64:
        return _obstacle4(IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in network for network in _CLOSED6) or not address.is_global:
        return "not a global address"
    return None


def _obstacle4(address: IPv4Address) -> str | None:
    if address in NEVER[1]:
        return "a loopback address"
    if any(address in network for network in NEVER):
        return "not a host's address"
    if any(address in network for network in METADATA):
        return "link-local or metadata of a cloud"
    for network, why in _PRIVATE:
        if address in network:
            return why
    return None if address.is_global else "not a global address"
