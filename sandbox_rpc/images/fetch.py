"""One blob from where it is to a file: resumed, retried, verified, with progress."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from attrs import frozen

from sandbox_rpc.host import files
from sandbox_rpc.images.http import Transient
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.images.registry import wrong_size
from sandbox_rpc.images.unpack import Intake, check_room, why
from sandbox_rpc.protocol.errors import DigestMismatch, DownloadFailed, ImageInvalid

PIECE = 1 << 18


class Source(Protocol):
    """Where blobs are: a registry, or an OCI layout."""

    def manifest(self, name: str) -> bytes:
        """A manifest by tag or digest."""

    def blob(self, blob: Blob, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Where the pieces begin, at `offset` or before it, and the pieces."""


@frozen
class Retries:
    """When to give up."""

    attempts: int = 6
    """Failures in a row, without a byte between them."""
    first_pause_s: float = 0.5
    """Doubled with each of them."""
    longest_pause_s: float = 20.0
    watch_s: float = 30.0
    """Over which the rate is judged."""
    slowest: int = 1024
    """Bytes per second below which a connection counts as stalled."""


Tell = Callable[[int], None]
"""Told how many bytes are there."""


def fetch(
    source: Source,
    blob: Blob,
    partial: Path,
    unpacked: Path,
    *,
    ref: str,
    verbatim: bool = False,
    tell: Tell = lambda _: None,
    retries: Retries | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch a blob into `unpacked`, decompressed unless `verbatim`.

    What has come is appended to `partial` as it is, so that the next call goes on from there, also
    after kill -9; it is removed once all of it was unpacked, or was wrong.

    Raises:
        DigestMismatch: it is not what was published; nothing of it is kept.
        ImageInvalid: it is, but cannot be used.
        DownloadFailed: it could not be had; the partial file is kept.
        DiskFull: no room; the partial file is kept.
    """
    for fresh in (False, True):
        if fresh:
            partial.unlink(missing_ok=True)
        resumed = partial.exists()
        unpacked.unlink(missing_ok=True)
        try:
            _attempt(source, blob, partial, unpacked, ref, verbatim, tell, retries, sleep)
        except DigestMismatch:
            unpacked.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
            if not resumed:
                raise
            # The part may be of a machine that crashed before it was on the disk: once more.
            continue
        except ImageInvalid:
            unpacked.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
            raise
        except BaseException:
            unpacked.unlink(missing_ok=True)
            raise
        partial.unlink()
        return


def _attempt(
    source: Source,
    blob: Blob,
    partial: Path,
    unpacked: Path,
    ref: str,
    verbatim: bool,
    tell: Tell,
    retries: Retries | None,
    sleep: Callable[[float], None],
) -> None:
    with files.translated(partial):
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with open(fd, "r+b", buffering=0) as file:
        there = os.fstat(fd).st_size
        check_room(partial.parent, max(0, blob.size - there))
        intake = Intake(unpacked, verbatim=verbatim)
        try:
            while piece := file.read(PIECE):
                intake.feed(piece)
                tell(intake.size)
            _Download(
                source, blob, partial, file.fileno(), intake, ref, tell, retries or Retries()
            ).run(sleep)
        except BaseException:
            # The threads end before their file is removed.
            intake.finish()
            raise
        digest, error = intake.finish()
    if digest != blob.digest:
        raise DigestMismatch(
            f"A part of {ref} is not what was published: its digest is another one.",
            hint="Nothing of it was kept. Something on the way changes it, or the registry is "
            "broken.",
            ref=ref, expected=blob.digest, found=digest,
        )  # fmt: skip
    if error is not None:
        raise why(error)


class _Download:
    """The network's part: pieces into the intake and the partial file, over several connections."""

    def __init__(
        self, source: Source, blob: Blob, partial: Path, fd: int, intake: Intake, ref: str,
        tell: Tell, retries: Retries,
    ) -> None:  # fmt: skip
        self._source = source
        self._blob = blob
        self._partial = partial
        self._fd = fd
        self._intake = intake
        self._ref = ref
        self._tell = tell
        self._retries = retries

    def run(self, sleep: Callable[[float], None]) -> None:
        """Until all is there."""
        failures = 0
        while self._intake.size < self._blob.size:
            before = self._intake.size
            try:
                self._connection()
                if self._intake.size < self._blob.size:
                    raise Transient("the connection ended early")
            except Transient as failure:
                failures = 1 if self._intake.size > before else failures + 1
                if failures >= self._retries.attempts:
                    raise DownloadFailed(
                        f"{self._ref} could not be downloaded: {failure}.",
                        hint=f"{self._intake.size >> 20} of {self._blob.size >> 20} MiB are kept; "
                        "the next pull goes on from there.",
                        ref=self._ref, doneBytes=self._intake.size, totalBytes=self._blob.size,
                    ) from failure  # fmt: skip
                sleep(self._pause(failures, failure.wait_s))
        if self._intake.size > self._blob.size:
            raise wrong_size(self._ref, self._blob, self._intake.size)

    def _pause(self, failures: int, wished: float | None) -> float:
        pause = min(
            self._retries.first_pause_s * float(1 << (failures - 1)),
            self._retries.longest_pause_s,
        )
        # Not all at the same moment, where many wait for one server.
        return max(wished or 0.0, pause * random.uniform(0.7, 1.3))

    def _connection(self) -> None:
        intake, offset = self._intake, self._intake.size
        with self._source.blob(self._blob, offset) as (begin, pieces):
            skip = offset - begin
            pace = Pace(self._retries.watch_s)
            for received in pieces:
                piece = received
                pace.add(len(piece))
                if pace.is_known and pace.rate < self._retries.slowest:
                    raise Transient("it has become too slow")
                if skip:
                    piece, skip = piece[skip:], max(0, skip - len(piece))
                if not piece:
                    continue
                if intake.size + len(piece) > self._blob.size:
                    raise wrong_size(self._ref, self._blob, intake.size + len(piece))
                with files.translated(self._partial):
                    _write_all(self._fd, piece)
                intake.feed(piece)
                self._tell(intake.size)


class Pace:
    """A rate over the last seconds."""

    def __init__(self, over_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._over_s = over_s
        self._clock = clock
        self._points: deque[tuple[float, int]] = deque([(clock(), 0)])

    def add(self, count: int) -> None:
        """Some bytes have come."""
        now, total = self._clock(), self._points[-1][1] + count
        # Ten points for each span are enough, and cost nothing.
        if len(self._points) > 1 and now - self._points[-2][0] < self._over_s / 10:
            self._points[-1] = now, total
        else:
            self._points.append((now, total))
        while len(self._points) > 2 and now - self._points[1][0] >= self._over_s:
            self._points.popleft()

    @property
    def is_known(self) -> bool:
        """Whether it was watched for all of the span."""
        return self._points[-1][0] - self._points[0][0] >= self._over_s

    @property
    def rate(self) -> float:
        """Bytes per second."""
        (first, before), (last, after) = self._points[0], self._points[-1]
        return (after - before) / max(last - first, 0.001)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
