"""An OCI image layout, folder or tar: read as a registry is, and written.

    oci-layout  index.json  blobs/sha256/<hex>

A name is the annotation `org.opencontainers.image.ref.name` of an entry of the index.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from sandbox_rpc.host import files
from sandbox_rpc.images import manifest
from sandbox_rpc.images.manifest import REF_NAME, Blob
from sandbox_rpc.images.reference import DIGEST
from sandbox_rpc.protocol.errors import (
    DigestMismatch,
    ImageInvalid,
    ImageNotFound,
    PermissionDenied,
)

MARKER = "oci-layout"
VERSION = b'{"imageLayoutVersion":"1.0.0"}'
PIECE = 1 << 20


class Layout:
    """Reads one; a tar is read in place."""

    def __init__(self, path: Path) -> None:
        """Raises:
        ImageInvalid: it is none.
        """
        self._path = path
        self._tar: tarfile.TarFile | None = None
        self._members: dict[str, tarfile.TarInfo] = {}
        if not path.is_dir():
            try:
                self._tar = tarfile.open(str(path), "r:")  # noqa: SIM115 (as long as this lives)
                members = self._tar.getmembers()
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise self._odd("it is neither a folder nor a tar") from error
            self._members = {m.name.removeprefix("./"): m for m in members if m.isfile()}
        if b"imageLayoutVersion" not in (self._read(MARKER, 4096) or b""):
            raise self._odd("it has no oci-layout file")
        try:
            index = json.loads(self._read("index.json", manifest.MAX_MANIFEST) or b"")
            self._entries: list[Mapping[str, Any]] = [
                entry for entry in index["manifests"] if isinstance(entry, dict)
            ]
        except (ValueError, KeyError, TypeError):
            raise self._odd("its index.json makes no sense") from None

    def top(self, name: str | None) -> str:
        """The digest of the manifest with a name, or of the only one.

        Raises:
            ImageNotFound: there is none of that name, or several and no name.
        """
        found = {
            str(entry.get("digest")): str((entry.get("annotations") or {}).get(REF_NAME, ""))
            for entry in self._entries
        }
        fitting = [digest for digest, own in found.items() if name in (None, own, digest)]
        if len(fitting) == 1 and DIGEST.fullmatch(fitting[0]):
            return fitting[0]
        known = ", ".join(sorted(filter(None, found.values()))) or "no names"
        raise ImageNotFound(
            f"{self._path} has {len(fitting)} images"
            f"{f' of the name {name!r}' if name else ''}; it has {known}.",
            hint="Name one: sandbox image import PATH --name NAME.",
        )

    def manifest(self, name: str) -> bytes:
        """A manifest by digest.

        Raises:
            ImageInvalid: it is missing.
            DigestMismatch: it is another one.
        """
        content = self._read(self._place(name), manifest.MAX_MANIFEST)
        if content is None:
            raise self._odd(f"{name} is missing")
        if manifest.digest_of(content) != name:
            raise DigestMismatch(f"A manifest in {self._path} does not have its digest, {name}.")
        return content

    @contextmanager
    def blob(self, blob: Blob, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A blob from `offset` on.

        Raises:
            ImageInvalid: it is missing.
        """
        with self._open(self._place(blob.digest)) as file:
            if file is None:
                raise self._odd(f"{blob.digest} is missing")
            size = file.seek(0, io.SEEK_END)
            if size != blob.size:
                raise DigestMismatch(
                    f"A part in {self._path} has {size} bytes instead of {blob.size}."
                )
            file.seek(offset)
            yield offset, iter(lambda: file.read(PIECE), b"")

    def _place(self, digest: str) -> str:
        return f"blobs/sha256/{digest.removeprefix('sha256:')}"

    def _open(self, name: str) -> AbstractContextManager[IO[bytes] | None]:
        if self._tar is not None:
            member = self._members.get(name)
            return (
                nullcontext(None) if member is None else nullcontext(self._tar.extractfile(member))
            )
        try:
            fd = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return nullcontext(None)
        except OSError as error:
            raise PermissionDenied(f"Cannot read {self._path / name}: {error.strerror}.") from error
        return open(fd, "rb")

    def _read(self, name: str, limit: int) -> bytes | None:
        with self._open(name) as file:
            return None if file is None else file.read(limit + 1)

    def _odd(self, why: str) -> ImageInvalid:
        return ImageInvalid(f"{self._path} is not an OCI layout: {why}.", hint="")


Content = Callable[[], IO[bytes]]


def write(
    path: Path, top: bytes, blobs: Mapping[Blob, Content], ref: str, tell: Callable[[int], None]
) -> None:
    """Write a layout with one image: a tar where the name ends in `.tar`, else a folder.

    It appears whole or not at all.

    Raises:
        PermissionDenied: something is there, or it cannot be written.
        DiskFull: no room.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise PermissionDenied(
            f"{path} is there already.", hint="Name a path that is not.", path=str(path)
        )
    entry: dict[str, Any] = manifest.described(
        Blob(manifest.digest_of(top), len(top), manifest.MANIFEST)
    )
    entry |= {"artifactType": manifest.ARTIFACT, "annotations": {REF_NAME: ref}}
    index = {"schemaVersion": 2, "mediaType": manifest.INDEX, "manifests": [entry]}
    small = {
        MARKER: VERSION,
        "index.json": json.dumps(index).encode(),
        f"blobs/sha256/{manifest.digest_of(top).removeprefix('sha256:')}": top,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with files.translated(path):
        try:
            if path.suffix == ".tar":
                _write_tar(temporary, small, blobs, tell)
            else:
                _write_folder(temporary, small, blobs, tell)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)
            raise


def _write_folder(
    folder: Path,
    small: Mapping[str, bytes],
    blobs: Mapping[Blob, Content],
    tell: Callable[[int], None],
) -> None:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for name, content in small.items():
        (folder / name).write_bytes(content)
    done = 0
    for blob, opened in blobs.items():
        with opened() as source, (folder / "blobs" / "sha256" / blob.hex).open("xb") as out:
            while piece := source.read(PIECE):
                out.write(piece)
                done += len(piece)
                tell(done)


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read; tarfile copies it itself."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None], done: int) -> None:
        super().__init__()
        self._file, self._tell, self.done = file, tell, done

    def read(self, count: int = -1) -> bytes:
        piece = self._file.read(count)
        self.done += len(piece)
        self._tell(self.done)
        return piece


def _write_tar(
    path: Path,
    small: Mapping[str, bytes],
    blobs: Mapping[Blob, Content],
    tell: Callable[[int], None],
) -> None:
    # Names without "./" in front: the ORAS CLI does not find them otherwise.
    with tarfile.open(path, "x", format=tarfile.PAX_FORMAT) as tar:
        for name, content in small.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        done = 0
        for blob, opened in blobs.items():
            entry = tarfile.TarInfo(f"blobs/sha256/{blob.hex}")
            entry.size, entry.mode = blob.size, 0o644
            with opened() as source:
                counted = _Counted(source, tell, done)
                tar.addfile(entry, counted)
                done = counted.done
