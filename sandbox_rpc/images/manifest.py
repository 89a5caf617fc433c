"""Manifests of images in a registry: read from strangers, written for our own. Pure.

Two shapes are read. The ORAS CLI's has one layer, a disk; its media type says nothing (it is a
container's), so the title tells and, once it is there, its first bytes. Ours has the kernel and the
initrd as layers of their own, and what the builder knows of the image as its configuration:

    artifactType  application/vnd.sandbox-rpc.image.v1
    config        application/vnd.sandbox-rpc.image.config.v1+json     image.json of the builder
    layers        application/vnd.sandbox-rpc.disk.v1.qcow2+zstd       disk.qcow2.zst
                  application/vnd.sandbox-rpc.kernel.v1                vmlinuz
                  application/vnd.sandbox-rpc.initrd.v1                initrd
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from sandbox_rpc.images.reference import DIGEST
from sandbox_rpc.protocol.errors import ImageInvalid

MAX_MANIFEST = 4 << 20
MAX_CONFIG = 1 << 20
MAX_DISK = 64 << 30
"""Bytes of a disk as it is in the registry."""
MAX_KERNEL = 512 << 20
"""Bytes of a kernel, and of an initrd."""
MAX_LAYERS = 64

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED = (INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)

ARTIFACT = "application/vnd.sandbox-rpc.image.v1"
CONFIG = "application/vnd.sandbox-rpc.image.config.v1+json"
DISK = "application/vnd.sandbox-rpc.disk.v1.qcow2+zstd"
KERNEL = "application/vnd.sandbox-rpc.kernel.v1"
INITRD = "application/vnd.sandbox-rpc.initrd.v1"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
REF_NAME = "org.opencontainers.image.ref.name"

ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
_DISK_TITLE = re.compile(r"\.(qcow2|img|raw)(\.zst|\.zstd)?$")
_KERNEL_TITLE = re.compile(r"^(vmlinuz|vmlinux|kernel)([-.].*)?$")
_INITRD_TITLE = re.compile(r"^(initrd|initramfs)([-.].*)?$")


@frozen
class Blob:
    """A piece of content by what it must be."""

    digest: str
    size: int
    """Bytes."""
    media_type: str = ""
    title: str = ""

    @property
    def hex(self) -> str:
        """The digest as a file name."""
        return self.digest.removeprefix("sha256:")


@frozen
class Artifact:
    """What a manifest says an image consists of."""

    digest: str
    """Of the manifest itself."""
    disk: Blob
    kernel: Blob | None = None
    initrd: Blob | None = None
    config: Blob | None = None
    """What the builder knows; only of our own shape."""
    created_at: str | None = None
    annotations: Mapping[str, str] = field(factory=dict)

    @property
    def blobs(self) -> list[Blob]:
        """All that has to be fetched, the largest one last."""
        return [blob for blob in (self.config, self.kernel, self.initrd, self.disk) if blob]


def digest_of(content: bytes) -> str:
    """`sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(content: bytes, ref: str) -> Mapping[str, Any]:
    """A manifest as JSON.

    Raises:
        ImageInvalid: it is none.
    """
    if len(content) > MAX_MANIFEST:
        raise _odd(ref, f"its manifest is longer than {MAX_MANIFEST} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise _odd(ref, "its manifest is not JSON") from None
    if not isinstance(found, dict) or found.get("schemaVersion") != 2:
        raise _odd(ref, "its manifest is of no version that is known here")
    return found


def chosen(index: Mapping[str, Any], ref: str, arch: str) -> Blob | None:
    """The manifest for an architecture in an index; None where this is no index.

    Raises:
        ImageInvalid: it has none for it.
    """
    entries = index.get("manifests")
    if not isinstance(entries, list):
        return None
    usable = []
    for entry in entries[:MAX_LAYERS]:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        name = str(platform.get("architecture", "")) if isinstance(platform, dict) else ""
        if not name or ARCHITECTURES.get(name) == arch:
            usable.append(blob_of(entry, ref, MAX_MANIFEST))
    if not usable:
        raise _odd(ref, f"it has nothing for {arch}")
    return usable[0]


def artifact(manifest: Mapping[str, Any], ref: str, digest: str) -> Artifact:
    """What to fetch of an image.

    Raises:
        ImageInvalid: it is not a virtual machine's disk, or not one that is taken.
    """
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        raise _odd(ref, "it has no layers")
    if len(layers) > MAX_LAYERS:
        raise _odd(ref, f"it has more than {MAX_LAYERS} layers")
    annotations = _annotations(manifest)
    blobs = [blob_of(layer, ref, MAX_DISK) for layer in layers]
    disk = _disk(blobs, ref)
    kernel = _one(blobs, KERNEL, _KERNEL_TITLE)
    initrd = _one(blobs, INITRD, _INITRD_TITLE)
    for blob in (kernel, initrd):
        if blob is not None and blob.size > MAX_KERNEL:
            raise _odd(ref, f"{blob.title or 'a layer'} is larger than {MAX_KERNEL >> 20} MiB")
    config = None
    entry = manifest.get("config")
    if isinstance(entry, dict) and entry.get("mediaType") == CONFIG:
        config = blob_of(entry, ref, MAX_CONFIG)
    return Artifact(
        digest=digest, disk=disk, kernel=kernel, initrd=initrd, config=config,
        created_at=annotations.get(CREATED), annotations=annotations,
    )  # fmt: skip


def own(config: Blob, disk: Blob, kernel: Blob, initrd: Blob, created_at: str, arch: str) -> bytes:
    """The manifest of an image of our own shape; the same image gives the same bytes."""
    names = {value: key for key, value in ARCHITECTURES.items() if key != value}
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": described(config),
        "layers": [described(blob) for blob in (disk, kernel, initrd)],
        "annotations": {CREATED: created_at, "vnd.sandbox-rpc.architecture": names.get(arch, arch)},
    }
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def blob_of(entry: object, ref: str, limit: int) -> Blob:
    """What a manifest says of one of its parts, which may have `limit` bytes.

    Raises:
        ImageInvalid: it makes no sense.
    """
    if not isinstance(entry, dict):
        raise _odd(ref, "its manifest has an entry that is none")
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise _odd(ref, f"it has a digest that is not sha256: {str(digest)[:40]!r}")
    if type(size) is not int or not 0 < size <= limit:
        raise _odd(
            ref, f"one of its parts would have {str(size)[:20]} bytes, at most {limit} are taken"
        )
    # A title is only compared with patterns: it never becomes a path.
    return Blob(digest, size, str(entry.get("mediaType", "")), _annotations(entry).get(TITLE, ""))


def described(blob: Blob) -> dict[str, Any]:
    """A blob as manifests name it."""
    value: dict[str, Any] = {
        "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size,
    }  # fmt: skip
    return value | ({"annotations": {TITLE: blob.title}} if blob.title else {})


def _disk(blobs: Sequence[Blob], ref: str) -> Blob:
    found = [blob for blob in blobs if blob.media_type == DISK]
    found = found or [blob for blob in blobs if _DISK_TITLE.search(blob.title)]
    if not found and len(blobs) == 1 and not _is_container(blobs[0]):
        found = list(blobs)
    if len(found) == 1:
        return found[0]
    if not found:
        raise _odd(
            ref,
            "it has no disk",
            hint="It looks like a container's image; a virtual machine's is one layer, "
            "a qcow2 file compressed by zstd, and its title says so (disk.qcow2.zst).",
        )
    raise _odd(ref, f"it has {len(found)} disks")


def _is_container(blob: Blob) -> bool:
    """Whether a layer without a title is one of a container: the ORAS CLI always gives a title."""
    return (
        not blob.title and re.search(r"\.tar(\.gzip|\+gzip|\+zstd)?$", blob.media_type) is not None
    )


def _one(blobs: Sequence[Blob], media_type: str, title: re.Pattern[str]) -> Blob | None:
    found = [blob for blob in blobs if blob.media_type == media_type]
    found = found or [blob for blob in blobs if title.match(blob.title)]
    return found[0] if found else None


def _annotations(entry: Mapping[str, Any]) -> dict[str, str]:
    found = entry.get("annotations")
    if not isinstance(found, dict):
        return {}
    return {str(key): value for key, value in found.items() if isinstance(value, str)}


def _odd(ref: str, why: str, *, hint: str = "Nothing of it was kept.") -> ImageInvalid:
    return ImageInvalid(f"{ref} is not an image for a sandbox: {why}.", hint=hint, ref=ref)
