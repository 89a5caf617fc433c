"""The images this user has: immutable folders named by their content, and names for them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from sandbox_rpc.host import files, locks
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import ImageInUse, ImageInvalid, ImageNotFound, StateNewer

DEFAULT_REF = "local/debian-13"
"""What a start takes that names no image."""

SCHEMA = 1
DISK = "disk.qcow2"
KERNEL = "vmlinuz"
INITRD = "initrd"
METADATA = "image.json"

_REF = re.compile(
    r"(?P<name>[a-z0-9]+(?:[._:-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)
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
    """Whether our agent is in it: without, no warm start and no orderly unmount."""
    ssh_port: int
    """Where its sshd listens in the guest."""
    disk_mib: int
    """Virtual size; a sandbox's disk is at least as large. MiB."""
    created_at: str
    size_bytes: int
    """Room its files take here."""


def normalize(ref: str) -> str:
    """The reference as it is kept.

    Raises:
        ImageNotFound: no image can have this name.
    """
    if len(ref) > 255 or ".json/" in ref or not _REF.fullmatch(ref):
        raise ImageNotFound(
            f"{ref[:80]!r} is not a name an image can have.",
            hint="Names look like local/debian-13 or local/debian-13:plain, in lower case.",
            ref=ref[:255],
        )
    return ref


def resolve(layout: Layout, ref: str) -> StoredImage:
    """The image of a reference, of `sha256:…`, or of the first 12 or more digits of a digest.

    Raises:
        ImageNotFound: there is none, or several begin with these digits.
        ImageInvalid: its files are missing or have other sizes.
        StateNewer: a newer version has written it.
    """
    if digits := _DIGEST.fullmatch(ref):
        return _by_digest(layout, ref, digits[1])
    path = _ref_file(layout, normalize(ref))
    try:
        entry = json.loads(path.read_bytes())
        found = _DIGEST.fullmatch(entry["digest"])
    except FileNotFoundError:
        raise _absent(ref) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ImageInvalid(f"The reference {ref} is damaged: {path}.", ref=ref) from error
    if not found:
        raise ImageInvalid(f"The reference {ref} is damaged: {path}.", ref=ref)
    return load(ref, layout.images / found[1])


def list_images(layout: Layout) -> list[StoredImage]:
    """All usable images, one for each reference, by name; damaged ones are left out."""
    found = []
    for ref in references(layout):
        try:
            found.append(resolve(layout, ref))
        except (ImageNotFound, ImageInvalid, StateNewer):
            continue
    return found


def references(layout: Layout) -> list[str]:
    """All names there are, sorted."""
    suffix = ".json"
    if not layout.refs.is_dir():
        return []
    paths = (p.relative_to(layout.refs).as_posix() for p in layout.refs.rglob(f"*{suffix}"))
    names = (name.removesuffix(suffix) for name in paths)
    return sorted(name for name in names if _REF.fullmatch(name))


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


def describe(folder: Path, facts: Mapping[str, Any]) -> str:
    """Write `image.json` for the files in a staging folder; the digest that names them together.

    Reads all of them once. `facts` are the fields of `image.json` other than schema and files.
    """
    entries = {}
    for name in (DISK, INITRD, KERNEL):
        path = folder / name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[name] = {"sha256": digest, "size": path.stat().st_size}
    metadata = {"schema": SCHEMA, **facts, "files": entries}
    files.replace(folder / METADATA, json.dumps(metadata, indent=2) + "\n", 0o444)
    return digest_of(metadata)


def digest_of(metadata: Mapping[str, Any]) -> str:
    """`sha256:…` of an image: of its metadata, which holds the digest of each of its files."""
    canonical = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def publish(layout: Layout, ref: str, staged: Path, digest: str) -> StoredImage:
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
        if final.exists():
            shutil.rmtree(staged)
        else:
            staged.rename(final)
        _flush(layout.images)
        name_image(layout, ref, digest)
    return load(ref, final)


def name_image(layout: Layout, ref: str, digest: str) -> None:
    """Let `ref` mean the image `digest` from now on; the caller holds the cache's lock."""
    path = _ref_file(layout, normalize(ref))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(path, json.dumps({"ref": ref, "digest": digest}) + "\n")


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
        doomed = [names[0]] if names and ref == names[0] else names
        others = [n for n, d in _digests(layout) if d == digest and n not in doomed]
        users = sorted(in_use(digest) if callable(in_use) else {digest} & set(in_use))
        if users and not others:
            raise ImageInUse(
                f"The image {ref} is needed by running sandboxes.",
                hint="Stop them first, or remove it later.",
                ref=ref,
                digest=digest,
                users=users,
            )
        for name in doomed:
            _ref_file(layout, name).unlink(missing_ok=True)
        folder = layout.images / digest.removeprefix("sha256:")
        return 0 if others else _discard(layout, folder)


def prune(layout: Layout, in_use: Collection[str] | Callable[[str], Collection[str]] = ()) -> int:
    """Remove images that have no name and that nobody needs; the bytes that frees."""
    freed = 0
    with locks.held(layout.cache_lock):
        named = {digest for _, digest in _digests(layout)}
        for folder in sorted(layout.images.iterdir()):
            digest = f"sha256:{folder.name}"
            used = in_use(digest) if callable(in_use) else digest in in_use
            if not used and digest not in named:
                freed += _discard(layout, folder)
    return freed


def _names_of(layout: Layout, ref: str) -> tuple[list[str], str]:
    """The names that removing `ref` takes away, and the digest they have; damaged images too."""
    if digits := _DIGEST.fullmatch(ref):
        folders = [p for p in _folders(layout) if p.name.startswith(digits[1])]
        if len(folders) != 1:
            raise _absent(ref)
        digest = f"sha256:{folders[0].name}"
        return [name for name, of in _digests(layout) if of == digest], digest
    for name, digest in _digests(layout):
        if name == normalize(ref):
            return [name], digest
    path = _ref_file(layout, normalize(ref))
    if not path.exists():
        raise _absent(ref)
    path.unlink()
    raise ImageInvalid(f"The reference {ref} was damaged; it has been removed.", ref=ref)


def _digests(layout: Layout) -> Iterator[tuple[str, str]]:
    for name in references(layout):
        try:
            digest = json.loads(_ref_file(layout, name).read_bytes())["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            yield name, digest


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
    if len(found) != 1:
        raise _absent(ref)
    names = [name for name, digest in _digests(layout) if digest == f"sha256:{found[0].name}"]
    return load(names[0] if names else f"sha256:{found[0].name}", found[0])


def _folders(layout: Layout) -> list[Path]:
    return sorted(layout.images.iterdir()) if layout.images.is_dir() else []


def _absent(ref: str) -> ImageNotFound:
    return ImageNotFound(f"There is no image {ref}.", ref=ref)


def _ref_file(layout: Layout, ref: str) -> Path:
    return layout.refs / f"{ref}.json"


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
    )


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
