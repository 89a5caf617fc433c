"""One spelling for each host: names in lower case and ASCII, addresses as they are written. Pure.

What a resolver would take for an address is no name: `127.1`, `2130706433`, `0x7f.1` and
`0177.0.0.1` lead to places that no rule named.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

MAX_NAME = 253
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


class NoHost(ValueError):
    """It names no host; says why, as the rest of a sentence."""


def canonical(text: str) -> str:
    """The one spelling of a host as requests, hellos and rules name it; IPv6 without brackets.

    Raises:
        NoHost: it is neither a name nor an address in its usual form.
    """
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    # One dot at the end is the same name; two are none.
    name = text[:-1] if text.endswith(".") else text
    if not name.isascii():
        name = _encoded(name)
    name = name.lower()
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    if len(name) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise NoHost("is no host name")
    return name


def is_address(host: str) -> bool:
    """Whether a canonical host is an address rather than a name."""
    return ":" in host or bool(_NUMBER.fullmatch(host.rpartition(".")[2]))


def authority(host: str, port: int) -> str:
    """`host:port`, with brackets where they belong."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_authority(text: str, port: int | None = None) -> tuple[str, int]:
    """Canonical host and port of `host:port`; `port` where none is written.

    Raises:
        NoHost: it is no authority: no host, user names, a port that is none.
    """
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:@\[\]/?#\\]*)(?::([0-9]{1,5}))?", text, re.ASCII)
    if not found:
        raise NoHost("is no host and port")
    number = int(found[2]) if found[2] is not None else port
    if number is None:
        raise NoHost("names no port")
    if not 0 < number < 65536:
        raise NoHost("names a port that is none")
    return canonical(found[1]), number


def _ipv4(name: str) -> str:
    try:
        return str(IPv4Address(name))
    except AddressValueError:
        raise NoHost("is a number that some take for an address") from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise NoHost("has the zone of an interface")
    try:
        return str(IPv6Address(text))
    except AddressValueError:
        raise NoHost("is no address") from None


def _encoded(name: str) -> str:
    # Asked for here only: requests are ASCII, so a process that serves them never needs it.
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise NoHost(f"is no host name: {error}") from None
