"""A registry's address without anything that could be a secret. Pure."""

from __future__ import annotations

import enum
import re
from urllib.parse import urlsplit

from attrs import frozen

PORTS = {"http": 80, "https": 443}
MAX_URL = 2048


class Kind(enum.StrEnum):
    """Whose registry it is."""

    APT = "apt"
    PIP = "pip"
    NPM = "npm"
    CARGO = "cargo"
    GO = "go"


@frozen
class Registry:
    """One place that packages come from."""

    kind: Kind
    url: str
    """Without user name, password, query and fragment."""
    host: str
    """Lower case; a name, or an address without brackets."""
    port: int
    role: str = ""
    """apt: `debian`, `debian-security`, `proxy`; pip: `index`, `extra`, `files`; npm: `registry` or
    a scope with its @; cargo: `crates-io` or a registry's name; go: `proxy`."""
    configured: bool = True
    """False for what the tool uses where nobody has told it anything."""


class Unfit(ValueError):
    """An address that cannot or may not be passed on; says why."""


def clean(kind: Kind, text: str, role: str = "", *, configured: bool = True) -> Registry | None:
    """The registry of an address as configuration writes it; None where it is not on a network.

    Raises:
        Unfit: it is no address, or seems to have a secret in its path. The message holds none of it
            but the host's name.
    """
    text = text.strip()
    for prefix in ("sparse+", "registry+", "git+"):
        text = text.removeprefix(prefix)
    if not re.fullmatch(rf"[!-~]{{1,{MAX_URL}}}", text):
        raise Unfit("is no address")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise Unfit("is no address") from None
    if parts.scheme.lower() not in PORTS:
        return None
    # A password with a / or # in it, unquoted: what comes before would be taken for the host.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise Unfit("has an @ in an odd place")
    scheme = parts.scheme.lower()
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?|[0-9a-f:.]+", host):
        raise Unfit("names no host")
    # What a shell or npm would put in there is not known here, and is often a token.
    if re.search(r"[${}\"'\\<>`^|]", parts.path):
        raise Unfit(f"at {host} has a variable or odd characters in its path")
    if any(map(looks_secret, parts.path.split("/"))):
        raise Unfit(f"at {host} has what looks like a token in its path")
    host = host.rstrip(".")
    number = PORTS[scheme] if port is None else port
    if not 0 < number < 65536:
        raise Unfit("names no port")
    shown = f"[{host}]" if ":" in host else host
    place = shown if number == PORTS[scheme] else f"{shown}:{number}"
    return Registry(kind, f"{scheme}://{place}{parts.path}", host, number, role, configured)


def looks_secret(segment: str) -> bool:
    """Whether part of a path may be a token: some services put theirs there.

    Names that people choose have few digits in long words; dates of snapshots are known.
    """
    if re.fullmatch(r"\d{8}T\d{6}Z", segment):
        return False
    if ":" in segment:
        return True
    for run in re.split(r"[-._~+]", segment):
        digits = sum(character.isdigit() for character in run)
        if len(run) >= 16 and digits >= 2 and len(run) - digits >= 2:
            return True
        mixed = run != run.lower() and run != run.upper() and run != run.title()
        if len(run) >= 20 and mixed:
            return True
    return False
