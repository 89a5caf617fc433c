"""What an image is called: in a registry, on this machine, or by its digest. Pure.

    example.org/team/image:2025     a tag in a registry
    example.org/team/image@sha256:… exactly this manifest
    localhost:5000/team/image       a registry on this host; the tag is `latest`
    local/debian-13, mine:old       made or imported here

As in the distribution project's grammar, but no registry is meant where none is named: a first part
with a dot or a colon, or `localhost`, is one.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import evolve, frozen

from sandbox_rpc.config.settings import BY_KEY
from sandbox_rpc.protocol.errors import ImageNotFound

DEFAULT = str(BY_KEY["image"].default)
"""The image of a start that names none."""
BUILT = "local/debian-13"
"""What `sandbox image build` makes, and what stands in where the default cannot be had."""
TAG = "latest"
LONGEST = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@frozen
class Reference:
    """One name; `str()` is how it is kept and shown."""

    registry: str | None
    """Host, perhaps with a port; None: an image of this machine."""
    repository: str
    tag: str | None = None
    digest: str | None = None
    """`sha256:…` of a manifest; then there is no tag."""

    def __str__(self) -> str:
        name = f"{self.registry}/{self.repository}" if self.registry else self.repository
        if self.digest:
            return f"{name}@{self.digest}"
        return f"{name}:{self.tag}" if self.tag else name

    @property
    def manifest(self) -> str:
        """What a registry is asked for: the digest, or the tag."""
        return self.digest or self.tag or TAG

    @property
    def is_plain(self) -> bool:
        """Whether the registry is asked over plain http: only one on this host's loopback."""
        return self.registry is not None and is_loopback(host_of(self.registry))

    def pinned(self, digest: str) -> Reference:
        """The same repository by digest."""
        return evolve(self, tag=None, digest=digest)


def parse(text: str) -> Reference:
    """The reference that a text means; a registry's without tag and digest means `latest`.

    Raises:
        ImageNotFound: no image can have this name.
    """
    rest, at, digest = text.partition("@")
    first, slash, path = rest.partition("/")
    is_remote = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first.startswith("[")
    )
    name = path if is_remote else rest
    name, colon, tag = name.partition(":")
    problem = (
        len(text) > LONGEST + 200
        or len(rest) > LONGEST
        or not _PATH.fullmatch(name)
        # Names are files that end so; one must not be another's folder.
        or any(part.endswith(".json") for part in rest.split("/")[:-1])
        or (bool(colon) and not _TAG.fullmatch(tag))
        or (bool(at) and not DIGEST.fullmatch(digest))
        or (bool(at) and not is_remote)
        or (is_remote and not _is_host(first))
    )
    if problem:
        raise _refused(text)
    if not is_remote:
        return Reference(None, name, tag or None)
    return Reference(first.lower(), name, None if digest else tag or TAG, digest or None)


def _is_host(text: str) -> bool:
    if not _HOST.fullmatch(text):
        return False
    host, port = host_of(text), _port(text)
    if port is not None and not 0 < int(port) < 1 << 16:
        return False
    if text.startswith("["):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
    return True


def _port(registry: str) -> str | None:
    found = re.search(r":([0-9]+)$", registry if registry[0] != "[" else registry.partition("]")[2])
    return found[1] if found else None


def host_of(registry: str) -> str:
    """The host of `host:port`, an IPv6 address without its brackets."""
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(text: str) -> ImageNotFound:
    return ImageNotFound(
        f"{text[:80]!r} is not a name an image can have.",
        hint="Names look like example.org/owner/image:tag, example.org/owner/image@sha256:..., or "
        "local/debian-13, in lower case.",
        ref=text[:LONGEST],
    )
