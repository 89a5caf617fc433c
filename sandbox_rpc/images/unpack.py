"""A compressed disk while it arrives: hashed, decompressed and written with holes, in threads.

hashlib, zstandard and file writes all work without Python's global lock, so the three and the
network use as many processors as there are.
"""

from __future__ import annotations

import hashlib
import os
import queue
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from sandbox_rpc.host import files
from sandbox_rpc.protocol.errors import DiskFull, ImageInvalid, SandboxError

MAX_WINDOW = 1 << 27
"""Bytes of memory a frame may ask for; what the zstd command allows as well."""
MAX_UNPACKED = 256 << 30
"""Bytes of an unpacked disk."""
RESERVE = 512 << 20
"""Bytes of free space that are left for everybody else."""
CHECK_EVERY = 256 << 20
PIECE = 1 << 20
HOLE = 1 << 16
WAITING = 8
"""Pieces that may wait for a thread."""

ZSTD = b"\x28\xb5\x2f\xfd"
QCOW2 = b"QFI\xfb"
_OTHERS = {
    b"\x1f\x8b": "gzip", b"\xfd7zX": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip",
    b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip
_SEAL = b"\xa5" * 64
_ZEROS = bytes(HOLE)
TAIL = 32
"""More bytes than the head of a frame has."""


class _Worker(threading.Thread):
    """A thread that takes pieces in order; `None` is the end."""

    def __init__(self, work: Callable[[Callable[[], bytes]], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._pieces: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self.error: BaseException | None = None
        self.start()

    def feed(self, piece: bytes | None) -> None:
        """Hand a piece over; waits where it does not keep up."""
        self._pieces.put(piece)

    def run(self) -> None:
        """Work, then swallow what is left, so that nobody waits for a thread that failed."""
        ended = False

        def take() -> bytes:
            nonlocal ended
            piece = None if ended else self._pieces.get()
            ended = piece is None
            return piece or b""

        try:
            self._work(take)
        except BaseException as error:  # handed over in `finish`
            self.error = error
        while not ended:
            ended = self._pieces.get() is None


class Intake:
    """Takes the bytes of a blob in order; at the end says what they were."""

    def __init__(self, unpacked: Path | None, *, verbatim: bool = False) -> None:
        """`unpacked` is written with the decompressed content; `verbatim`: with the very bytes."""
        self.size = 0
        self._hash = hashlib.sha256()
        self._workers = [_Worker(self._digest)]
        self.frame_size = 0
        """What the first frame says it unpacks to, in bytes; 0: it does not say."""
        if unpacked is not None:
            write = self._copy if verbatim else self._unpack
            self._workers.append(_Worker(lambda take: write(take, unpacked)))

    def feed(self, piece: bytes) -> None:
        """Take a piece.

        Raises:
            DiskFull: there is no room for what it unpacks to; what was wrong with the content
                itself is said at the end, when it is known whether it is what was published.
        """
        self.size += len(piece)
        for worker in self._workers:
            if isinstance(worker.error, DiskFull):
                raise worker.error
            worker.feed(piece)

    def finish(self) -> tuple[str, BaseException | None]:
        """Wait for the threads; the digest, and why the content could not be used."""
        for worker in self._workers:
            worker.feed(None)
        for worker in self._workers:
            worker.join()
        errors = [worker.error for worker in self._workers if worker.error is not None]
        for error in errors:
            if isinstance(error, DiskFull):
                raise error
        return f"sha256:{self._hash.hexdigest()}", errors[0] if errors else None

    def _digest(self, take: Callable[[], bytes]) -> None:
        while piece := take():
            self._hash.update(piece)

    def _copy(self, take: Callable[[], bytes], path: Path) -> None:
        with Sparse(path) as out:
            while piece := take():
                out.write(memoryview(piece))

    def _unpack(self, take: Callable[[], bytes], path: Path) -> None:
        source = _Source(take)
        head = source.peek(18)
        with Sparse(path) as out:
            if head[:4] == QCOW2:
                while piece := source.read(PIECE):
                    out.write(memoryview(piece))
                return
            self.frame_size = check_frame(head)
            if self.frame_size:
                check_room(path.parent, self.frame_size)
            unzstd(source, out)


class _Source:
    """What a thread takes, as a file to read from."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        self._take = take
        self._rest = b""

    def peek(self, count: int) -> bytes:
        """The first bytes, which stay."""
        while len(self._rest) < count and (piece := self._take()):
            self._rest += piece
        return self._rest[:count]

    def read(self, count: int = -1) -> bytes:
        """Some bytes; empty at the end. A piece is given as it came, which saves copying it."""
        if not self._rest:
            self._rest = self._take()
        if 0 <= count < len(self._rest):
            piece, self._rest = self._rest[:count], self._rest[count:]
        else:
            piece, self._rest = self._rest, b""
        return piece


class Sparse:
    """A new file in which blocks of zeros take no room; `write` judges the room that is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._checked = 0

    def __enter__(self) -> Sparse:
        with files.translated(self._path):
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with files.translated(self._path):
                os.ftruncate(self._fd, self._at)
        finally:
            os.close(self._fd)

    def write(self, data: memoryview) -> None:
        """Write at the end.

        Raises:
            DiskFull: there is no room, or hardly any is left.
            ImageInvalid: the file would be larger than any disk is allowed to be.
        """
        if self._at + len(data) > MAX_UNPACKED:
            raise ImageInvalid(
                f"The disk unpacks to more than {MAX_UNPACKED >> 30} GiB, which is refused."
            )
        if self._at - self._checked >= CHECK_EVERY:
            check_room(self._path.parent, 0)
            self._checked = self._at
        with files.translated(self._path):
            for begin, end in _filled(data):
                while begin < end:
                    begin += os.pwrite(self._fd, data[begin:end], self._at + begin)
        self._at += len(data)


def _filled(data: memoryview) -> list[tuple[int, int]]:
    """The parts of a piece that are not all zeros, in blocks of 64 KiB."""
    parts: list[tuple[int, int]] = []
    for begin in range(0, len(data), HOLE):
        end = min(begin + HOLE, len(data))
        # The first and the last byte tell for nearly all blocks, without a copy.
        if (
            not data[begin]
            and not data[end - 1]
            and data[begin:end].tobytes() == _ZEROS[: end - begin]
        ):
            continue
        if parts and parts[-1][1] == begin:
            parts[-1] = parts[-1][0], end
        else:
            parts.append((begin, end))
    return parts


def check_frame(head: bytes) -> int:
    """What a zstd file unpacks to by its first bytes, 0 where it does not say.

    Raises:
        ImageInvalid: it is not compressed by zstd, or needs too much memory.
    """
    if head[:4] == ZSTD:
        try:
            parameters = zstandard.get_frame_parameters(head)
        except zstandard.ZstdError as error:
            raise ImageInvalid(f"The disk's compression is damaged: {error}.") from None
        if parameters.window_size > MAX_WINDOW:
            raise ImageInvalid(
                f"The disk is compressed with a window of {parameters.window_size >> 20} MiB; "
                f"at most {MAX_WINDOW >> 20} MiB are taken.",
                hint="Compress it without --long, or with --long=27.",
            )
        size = int(parameters.content_size)
        return size if 0 < size < 1 << 62 else 0
    if len(head) >= 4 and struct.unpack("<I", head[:4])[0] & 0xFFFFFFF0 == 0x184D2A50:
        return 0  # a frame to be skipped
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ImageInvalid(f"The disk is compressed by {name}; zstd is what is taken.")
    raise ImageInvalid("The disk is neither compressed by zstd nor a qcow2 file.")


def check_room(folder: Path, wanted: int) -> None:
    """See that a file system has room for `wanted` more bytes and something for others.

    Raises:
        DiskFull: it does not.
    """
    with files.translated(folder):
        found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < wanted + RESERVE:
        raise DiskFull(
            f"The image needs {wanted >> 20} MiB and {RESERVE >> 20} MiB to spare; "
            f"{folder} has {free >> 20} MiB left.",
            path=str(folder), neededBytes=wanted + RESERVE, freeBytes=free,
        )  # fmt: skip


def unzstd(source: Any, out: Sparse) -> None:
    """Decompress all frames of `source`, which has a `read`.

    Raises:
        ImageInvalid: it is damaged, or its last frame is not whole.
    """
    # The reader ends without an error where a file ends in the middle of a frame. So a frame of
    # ours follows: it is unpacked only if the one before it was whole. A text would not do: inside
    # an unfinished block that is not compressed it would come out as it is.
    sealed = _Sealed(source)
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
        sealed,  # type: ignore[arg-type]  # its `read` is all that is used
        read_size=PIECE,
        read_across_frames=True,
    )
    held = b""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    try:
        while count := reader.readinto(buffer):
            if not sealed.is_near_the_end:
                out.write(view[:count])
                continue
            held += bytes(view[:count])
            out.write(memoryview(held)[: -len(_SEAL)])
            held = held[-len(_SEAL) :]
    except zstandard.ZstdError as error:
        raise ImageInvalid(f"The disk's compression is damaged: {error}.") from None
    if held != _SEAL:
        raise ImageInvalid("The disk's compression is damaged: its end is missing.")


class _Sealed:
    """The source, and behind its end our frame, in one piece with the last bytes: a frame's head
    that comes in two parts of the wrong lengths is passed over by the decompressor (seen)."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._held = b""
        self.is_near_the_end = False

    def read(self, count: int) -> bytes:
        """Some bytes; empty behind our frame."""
        if self.is_near_the_end:
            return b""
        # Whole pieces are held back and handed on, so that none is copied.
        while piece := self._source.read(count):
            assert isinstance(piece, bytes)
            held, self._held = self._held, piece
            if len(piece) < TAIL:
                self._held = held + piece
            elif held:
                return held
        self.is_near_the_end = True
        return self._held + zstandard.ZstdCompressor().compress(_SEAL)


def why(error: BaseException) -> SandboxError:
    """A thread's error as one for people."""
    if isinstance(error, SandboxError):
        return error
    raise error
