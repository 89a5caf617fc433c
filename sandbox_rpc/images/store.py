"""The images this user has: immutable folders named by their content, and names for them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference, refs
from sandbox_rpc.images.refs import Entry
from sandbox_rpc.protocol.errors import ImageInUse, ImageInvalid, ImageNotFound, StateNewer

SCHEMA = 1
DISK = "disk.qcow2"
KERNEL = "vmlinuz"
INITRD = "initrd"
METADATA = "image.json"
SIGNED = "signed.json"
"""Beside these: by which keys it was seen to be signed (`images/key.py`)."""
FACTS = (
    "arch", "createdAt", "suite", "variant", "kernelVersion", "kernelCommandLine", "agent",
    "agentVersion", "sshPort", "diskMib", "foreign", "injectsAgent", "hostKeyFile", "cloudInit",
    "systemd", "manifest",
)  # fmt: skip
"""Fields of `image.json` beside `schema` and `files`."""

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})")


@frozen
class StoredImage:
    """One image, ready for a virtual machine; its files are read-only for everybody."""

    ref: str
    digest: str
    """`sha256:…` over all files and the metadata."""
    folder: Path
    disk: Path
    kernel: Path
    initrd: Path
    kernel_command_line: str
    arch: str
    agent: bool
    """Whether our agent runs in it: without, no warm start and no orderly unmount."""
    ssh_port: int
    """Where its sshd listens in the guest."""
    disk_mib: int
    """Virtual size; a sandbox's disk is at least as large. MiB."""
    created_at: str
    size_bytes: int
    """Room its files take here."""
    manifest: str | None = None
    """`sha256:…` of the manifest it came from in a registry or a layout."""
    foreign: bool = False
    """Whether somebody else made it: it is told who it is in all dialects, and wants DHCP."""
    injects_agent: bool = False
    """Whether the agent comes with the identity instead of being in the image."""
    systemd: int = 0
    """Version of its systemd, where that matters; 0: not known."""
    cloud_init: bool = False
    """Whether cloud-init is in it and wants its seed."""
    host_key_file: str | None = None
    """Where its sshd reads the ed25519 host key, if not from /etc/ssh."""


def is_digest(text: str) -> bool:
    """Whether a text means an image by its digest, or by the first digits of it."""
    return _DIGEST.fullmatch(text) is not None


def resolve(layout: Layout, ref: str) -> StoredImage:
    """The image of a reference, of `sha256:…`, or of the first 12 or more digits of a digest.

    A digest may be that of the image or of its manifest in a registry.

    Raises:
        ImageNotFound: there is none, or several begin with these digits.
        ImageInvalid: its files are missing or have other sizes.
        StateNewer: a newer version has written it.
    """
    if digits := _DIGEST.fullmatch(ref):
        return _by_digest(layout, ref, digits[1])
    name = reference.parse(ref)
    entry = refs.read(layout, str(name))
    if entry is not None:
        return load(str(name), layout.images / entry.digest.removeprefix("sha256:"))
    if name.digest and (image := by_manifest(layout, name.digest)):
        return attrs.evolve(image, ref=str(name))
    raise _absent(ref)


def by_manifest(layout: Layout, manifest: str) -> StoredImage | None:
    """The image that came from a manifest, or was pushed as it."""
    for entry in refs.every(layout):
        if entry.manifest == manifest:
            try:
                return load(entry.ref, layout.images / entry.digest.removeprefix("sha256:"))
            except (ImageNotFound, ImageInvalid, StateNewer):
                continue
    for folder in _folders(layout):
        try:
            image = load(f"sha256:{folder.name}", folder)
        except (ImageNotFound, ImageInvalid, StateNewer):
            continue
        if image.manifest == manifest:
            return image
    return None


def list_images(layout: Layout) -> list[StoredImage]:
    """All usable images, one for each reference, by name; damaged ones are left out."""
    found = []
    for ref in refs.names(layout):
        try:
            found.append(resolve(layout, ref))
        except (ImageNotFound, ImageInvalid, StateNewer):
            continue
    return found


def load(ref: str, folder: Path) -> StoredImage:
    """The image in a folder, whose digest is the folder's name.

    Raises:
        ImageNotFound: there is no such folder.
        ImageInvalid: its files are missing or have other sizes.
        StateNewer: a newer version has written it.
    """
    if not folder.is_dir():
        raise _absent(ref)
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        if metadata["schema"] > SCHEMA:
            raise StateNewer(f"The image {ref} was made by a newer version.", ref=ref)
        sizes = {name: entry["size"] for name, entry in metadata["files"].items()}
        image = _image(ref, folder, metadata, sum(sizes.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageInvalid(f"The image {ref} has no valid {METADATA}.", ref=ref) from error
    for name in {DISK, KERNEL, INITRD, *sizes}:
        path = folder / name
        if not path.is_file() or path.stat().st_size != sizes.get(name):
            raise ImageInvalid(f"The image {ref} is damaged: {name} is not as it was.", ref=ref)
    return image


def describe(folder: Path, facts: Mapping[str, Any], *, layer: str | None = None) -> str:
    """Write `image.json` for the files in a staging folder; the digest that names them together.

    Reads all of them once, the disk only where no `layer` is known: the digest of what it was
    unpacked from, which names it as well. `facts` are the fields other than schema and files.
    """
    entries: dict[str, dict[str, str | int]] = {}
    for name in (DISK, INITRD, KERNEL):
        path = folder / name
        size = path.stat().st_size
        if name == DISK and layer is not None:
            entries[name] = {"layer": layer, "size": size}
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[name] = {"sha256": digest, "size": size}
    metadata = {"schema": SCHEMA, **facts, "files": entries}
    files.replace(folder / METADATA, json.dumps(metadata, indent=2) + "\n", 0o444)
    return digest_of(metadata)


def digest_of(metadata: Mapping[str, Any]) -> str:
    """`sha256:…` of an image: of its metadata, which holds the digest of each of its files."""
    canonical = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def publish(
    layout: Layout,
    ref: str,
    staged: Path,
    digest: str,
    *,
    manifest: str | None = None,
    chosen: bool = True,
) -> StoredImage:
    """Move a staging folder with exactly an image's files into the store and name it; two renames.

    Whoever reads sees the old image under this name or the new one, never a part. An image that
    loses its last name is removed by `prune`.
    """
    final = layout.images / digest.removeprefix("sha256:")
    for name in (DISK, KERNEL, INITRD, METADATA):
        _flush(staged / name)
    staged.chmod(0o700)
    _flush(staged)
    with locks.held(layout.cache_lock), files.translated(final):
        if _is_whole(final):
            shutil.rmtree(staged)
        else:
            _discard(layout, final)
            staged.rename(final)
        _flush(layout.images)
        name_image(layout, ref, digest, manifest=manifest, chosen=chosen)
    return load(refs.normalize(ref), final)


def _is_whole(folder: Path) -> bool:
    try:
        load(folder.name, folder)
    except (ImageNotFound, ImageInvalid, StateNewer):
        return False
    return True


def name_image(
    layout: Layout, ref: str, digest: str, *, manifest: str | None = None, chosen: bool = True
) -> None:
    """Let `ref` mean the image `digest` from now on; the caller holds the cache's lock.

    `chosen` says that somebody asked for it, so that folders with another image move on to it.
    """
    refs.write(
        layout,
        Entry(refs.normalize(ref), digest, manifest=manifest, chosen=digest if chosen else None),
    )


def remove(
    layout: Layout, ref: str, in_use: Collection[str] | Callable[[str], Collection[str]] = ()
) -> int:
    """Take a name away, and the image with its last name; the bytes that frees.

    `in_use` holds the digests that sandboxes need, or tells for a digest which sandboxes do.

    Raises:
        ImageNotFound: there is no such image.
        ImageInUse: it would go, and a sandbox needs it.
    """
    with locks.held(layout.cache_lock):
        names, digest = _names_of(layout, ref)
        others = [n for n, d in _digests(layout) if d == digest and n not in names]
        users = sorted(in_use(digest) if callable(in_use) else {digest} & set(in_use))
        if users and not others:
            raise ImageInUse(
                f"The image {ref} is needed by running sandboxes.",
                hint="Stop them first, or remove it later.",
                ref=ref,
                digest=digest,
                users=users,
            )
        for name in names:
            refs.path_of(layout, name).unlink(missing_ok=True)
        folder = layout.images / digest.removeprefix("sha256:")
        return 0 if others else _discard(layout, folder)


def prune(layout: Layout, kept: Callable[[str], bool] | Collection[str] = ()) -> dict[str, int]:
    """Remove images that have no name, unless `kept` says so of their digest; bytes by digest."""
    freed = {}
    with locks.held(layout.cache_lock):
        named = {digest for _, digest in _digests(layout)}
        for folder in _folders(layout):
            digest = f"sha256:{folder.name}"
            needed = kept(digest) if callable(kept) else digest in kept
            if not needed and digest not in named:
                freed[digest] = _discard(layout, folder)
    return freed


def _names_of(layout: Layout, ref: str) -> tuple[list[str], str]:
    """The names that removing `ref` takes away, and the digest they have; damaged images too."""
    if digits := _DIGEST.fullmatch(ref):
        folders = [p for p in _folders(layout) if p.name.startswith(digits[1])]
        if len(folders) != 1:
            raise _absent(ref)
        digest = f"sha256:{folders[0].name}"
        return [name for name, of in _digests(layout) if of == digest], digest
    name = refs.normalize(ref)
    try:
        entry = refs.read(layout, name)
    except ImageInvalid:
        refs.path_of(layout, name).unlink()
        raise ImageInvalid(
            f"The reference {ref} was damaged; it has been removed.", ref=ref
        ) from None
    if entry is None:
        raise _absent(ref)
    return [name], entry.digest


def _digests(layout: Layout) -> list[tuple[str, str]]:
    return [(entry.ref, entry.digest) for entry in refs.every(layout)]


def _discard(layout: Layout, folder: Path) -> int:
    """Rename away first: a folder half removed must not be taken for an image."""
    if not folder.is_dir():
        return 0
    size = sum(p.stat().st_blocks * 512 for p in folder.iterdir())
    grave = layout.staging / f"removed-{folder.name}-{os.getpid()}"
    folder.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)
    return size


def _by_digest(layout: Layout, ref: str, digits: str) -> StoredImage:
    found = [p for p in _folders(layout) if p.name.startswith(digits)]
    if not found and len(digits) == 64 and (image := by_manifest(layout, f"sha256:{digits}")):
        return image
    if len(found) != 1:
        raise _absent(ref)
    names = [name for name, digest in _digests(layout) if digest == f"sha256:{found[0].name}"]
    return load(names[0] if names else f"sha256:{found[0].name}", found[0])


def _folders(layout: Layout) -> list[Path]:
    return sorted(layout.images.iterdir()) if layout.images.is_dir() else []


def _absent(ref: str) -> ImageNotFound:
    return ImageNotFound(f"There is no image {ref}.", ref=ref)


def _image(ref: str, folder: Path, metadata: Mapping[str, Any], size: int) -> StoredImage:
    return StoredImage(
        ref=ref,
        digest=f"sha256:{folder.name}",
        folder=folder,
        disk=folder / DISK,
        kernel=folder / KERNEL,
        initrd=folder / INITRD,
        kernel_command_line=str(metadata["kernelCommandLine"]),
        arch=str(metadata["arch"]),
        agent=bool(metadata["agent"]),
        ssh_port=int(metadata["sshPort"]),
        disk_mib=int(metadata["diskMib"]),
        created_at=str(metadata["createdAt"]),
        size_bytes=size,
        manifest=metadata.get("manifest"),
        foreign=bool(metadata.get("foreign", False)),
        injects_agent=bool(metadata.get("injectsAgent", False)),
        systemd=int(metadata.get("systemd", 0)),
        cloud_init=bool(metadata.get("cloudInit", False)),
        host_key_file=metadata.get("hostKeyFile"),
    )


def unnamed(layout: Layout) -> list[StoredImage]:
    """The usable images that no name means; their `ref` is their digest."""
    named = {digest for _, digest in _digests(layout)}
    found = []
    for folder in _folders(layout):
        digest = f"sha256:{folder.name}"
        if digest not in named:
            try:
                found.append(load(digest, folder))
            except (ImageNotFound, ImageInvalid, StateNewer):
                continue
    return found


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
