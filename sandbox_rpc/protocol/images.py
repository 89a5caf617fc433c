"""The values of the requests about images; conventions as in `types`."""

from __future__ import annotations

from attrs import field, frozen

from sandbox_rpc.protocol.types import LARGE


@frozen
class Image:
    """A disk with its kernel and initrd."""

    ref: str
    """Readable name."""
    digest: str
    """`sha256:…` over everything in it."""
    size_bytes: int = field(metadata=LARGE)
    """Room it takes on disk."""
    arch: str
    """`x86_64`, `aarch64`."""
    created_at: str
    """ISO 8601 time of the build; empty where it is not known."""
    in_use_by: list[str] = field(factory=list)
    """Running sandboxes that need it."""
    manifest: str | None = None
    """Digest of its manifest in a registry, what `NAME@sha256:…` names; None: it has none."""
    newer: str | None = None
    """Digest of what the registry has under this name now, where it was seen to be another one."""


@frozen
class ImageBuildParams:
    """An image to build from this host's Debian mirror."""

    ref: str | None = None
    """Name to give it; by default the one that starts use."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class ImagePullParams:
    """An image to get from a registry."""

    ref: str | None = None
    """Its reference; by default the one that starts use."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class ImagePushParams:
    """An image to put into a registry."""

    ref: str
    """Its name or digest here."""
    to: str
    """Registry, name and tag there."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class ImageImportParams:
    """An image to take from a file or folder."""

    path: str
    """OCI layout (folder or tar), qcow2 file, or one compressed by zstd."""
    ref: str | None = None
    """Name to give it; by default `local/` and what the file is called."""
    name: str | None = None
    """Which one, where a layout has several."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class ImageExportParams:
    """An image to write out."""

    ref: str
    """Its name or digest."""
    path: str
    """Where to write an OCI layout: a tar where it ends in `.tar`, else a folder."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class ImagePublished:
    """Where an image has gone."""

    digest: str
    """Of the image."""
    manifest: str
    """Digest of its manifest there."""


@frozen
class ImagePruneParams:
    """Which images to remove."""

    all: bool = False
    """Also those that have a name, and those that stopped sandboxes would start from."""


@frozen
class ImagePruned:
    """What was removed."""

    digests: list[str]
    """Of the images."""
    freed_bytes: int = field(metadata=LARGE)
    """Room that is free now, parts of downloads included."""


@frozen
class ImageRemoveParams:
    """An image to remove."""

    ref: str
    """Its name or digest."""
