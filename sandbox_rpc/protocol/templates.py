"""The values that go over the wire about templates, as those in `types`."""

from __future__ import annotations

from attrs import field, frozen

from sandbox_rpc.protocol.types import LARGE


@frozen
class Template:
    """A saved machine that sandboxes start from."""

    key: str
    """Names it: what it was made from, hashed."""
    image: str
    """Name its image had when it was made."""
    image_digest: str
    """Digest of the image."""
    accelerator: str
    """`kvm` or `tcg`."""
    memory_mib: int
    """Guest memory in MiB."""
    cpus: int
    """Virtual processors."""
    disk_mib: int
    """Size of the guest's disk in MiB."""
    qemu: str
    """Version of the QEMU it was made with, and is for."""
    size_bytes: int = field(metadata=LARGE)
    """Room it takes on disk."""
    created_at: str
    """ISO 8601 time of its making."""
    used_at: str
    """ISO 8601 time of the last start from it."""


@frozen
class TemplateBuildParams:
    """The settings of the starts that are to find a template; what is absent is as in a start."""

    image: str | None = None
    """Image to start from."""
    memory_mib: int | None = None
    """Memory of the guest in MiB."""
    cpus: int | None = None
    """Virtual processors of the guest."""
    disk_mib: int | None = None
    """Size of the guest's disk in MiB."""
    accelerator: str | None = None
    """`auto`, `kvm` or `tcg`."""
    qemu_binary: str | None = None
    """The QEMU to run."""
    work_done_token: int | str | None = None
    """Token for `$/progress`."""


@frozen
class TemplateRemoveParams:
    """A template to remove."""

    key: str
    """Its key, or the first digits of it."""
