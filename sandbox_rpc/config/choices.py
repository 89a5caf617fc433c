"""What a setting can be, where that is one of a few words."""

from __future__ import annotations

import enum


class Accelerator(enum.StrEnum):
    """What runs the guest's instructions."""

    AUTO = "auto"
    """KVM where it works, else emulation."""
    KVM = "kvm"
    """The processor itself."""
    TCG = "tcg"
    """QEMU's emulation: needs nothing, many times slower."""


class WorkspaceSecurity(enum.StrEnum):
    """How the shared folder keeps the owners and modes that the guest sets (9p security model)."""

    NONE = "none"
    """As they are, setuid refused."""
    MAPPED_XATTR = "mapped-xattr"
    """In extended attributes that only the guest sees."""


class Network(enum.StrEnum):
    """What the guest can reach."""

    OPEN = "open"
    """The internet, and nothing of the host or its networks."""
    PROXY = "proxy"
    """What the allowlist names, through the proxy."""
    OFFLINE = "offline"
    """Nothing; SSH comes in all the same."""


class BuildWhen(enum.StrEnum):
    """When the default image is built on this machine instead of being pulled."""

    UNREACHABLE = "unreachable"
    """Where its registry does not answer."""
    ALWAYS = "always"
    """Instead of asking a registry."""
    NEVER = "never"
    """A start without the image fails."""


class ProxyBackend(enum.StrEnum):
    """What the proxy is."""

    BUILTIN = "builtin"
    """Our own process."""
    CONTAINER = "container"
    """tinyproxy, by podman or docker."""


class Warm(enum.StrEnum):
    """Whether a start goes on from a saved machine."""

    AUTO = "auto"
    """Where there is one, or one can be made."""
    NEVER = "never"
    """Every start boots a kernel."""


class Need(enum.StrEnum):
    """Whether a wall of the box must stand."""

    AUTO = "auto"
    """Where the host allows it; its absence is reported."""
    REQUIRE = "require"
    """No start without it."""
    OFF = "off"
    """Left out, for finding out what is in the way."""
