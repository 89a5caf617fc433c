"""One repository of a registry: the distribution API, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from sandbox_rpc.images import http, manifest
from sandbox_rpc.images.auth import Authority
from sandbox_rpc.images.http import Client, Transient
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.images.reference import Reference
from sandbox_rpc.protocol.errors import DigestMismatch, DownloadFailed, ImageNotFound

PIECE = 1 << 18
"""Bytes. Larger ones are given back to the system each time, and their pages fetched anew."""
MAX_ERROR = 1 << 16
MAX_WAIT_S = 60.0
MEDIA_TYPE = manifest.MANIFEST


class Registry:
    """A place where images are, as `layout.Layout` is one; answers are checked, never believed."""

    def __init__(self, ref: Reference, *, push: bool = False, client: Client | None = None) -> None:
        assert ref.registry is not None
        self.ref = ref
        self._client = client or Client()
        scheme = "http" if ref.is_plain else "https"
        self._base = f"{scheme}://{ref.registry}/v2/{ref.repository}"
        actions = "pull,push" if push else "pull"
        scope = f"repository:{ref.repository}:{actions}"
        self._authority = Authority(self._client, ref.registry, scope)

    def manifest(self, name: str) -> bytes:
        """A manifest by tag or digest; one by digest has that digest.

        Raises:
            ImageNotFound: there is none.
            DigestMismatch: it is another one.
            Transient, DownloadFailed: it cannot be had.
        """
        headers = {"Accept": ", ".join(manifest.ACCEPTED)}
        with self._ask("GET", f"/manifests/{name}", headers=headers, follow=True) as response:
            self._expect(response, 200)
            what = f"The manifest of {self.ref}"
            content = http.read_limited(response, manifest.MAX_MANIFEST, what)
            said = response.headers.get("Docker-Content-Digest", "")
        wanted = name if name.startswith("sha256:") else said
        found = manifest.digest_of(content)
        if wanted.startswith("sha256:") and wanted != found:
            raise DigestMismatch(
                f"The manifest of {self.ref} is not the one that was announced.",
                hint="Something on the way changes it, or the registry is broken.",
                ref=str(self.ref), expected=wanted, found=found,
            )  # fmt: skip
        return content

    def look(self) -> str:
        """The digest of what the reference means now, without fetching it where that is possible.

        Raises:
            As `manifest`.
        """
        headers = {"Accept": ", ".join(manifest.ACCEPTED)}
        path = f"/manifests/{self.ref.manifest}"
        with self._ask("HEAD", path, headers=headers, follow=True) as response:
            self._expect(response, 200)
            said = response.headers.get("Docker-Content-Digest", "")
        return said or manifest.digest_of(self.manifest(self.ref.manifest))

    @contextmanager
    def blob(self, blob: Blob, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A blob from `offset` on, or from where the server wants to begin; and the pieces.

        Raises:
            DigestMismatch: what the server has is of another size.
            Transient: the connection failed; what came before is good as far as it goes.
            DownloadFailed, ImageNotFound: it cannot be had.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._ask("GET", f"/blobs/{blob.digest}", headers=headers, follow=True) as response:
            self._expect(response, 200, 206, 416)
            begin, total = _range(response, offset)
            if total is not None and total != blob.size:
                raise wrong_size(str(self.ref), blob, total)
            if response.status == 416 or not 0 <= begin <= offset:
                raise Transient(f"{self.ref.registry} sent another part than the one asked for")
            yield begin, _pieces(response, str(self.ref.registry))

    def has(self, blob: Blob) -> bool:
        """Whether the repository has a blob already."""
        with self._ask("HEAD", f"/blobs/{blob.digest}", follow=True) as response:
            return response.status == 200

    def upload(self, blob: Blob, pieces: Iterable[bytes]) -> None:
        """Put a blob into the repository, in one stream.

        Raises:
            Transient, DownloadFailed: it cannot be done.
        """
        with self._ask("POST", "/blobs/uploads/", headers={"Content-Length": "0"}) as response:
            self._expect(response, 202)
            there = response.headers.get("Location", "")
        place = urljoin(f"{self._base}/blobs/uploads/", there)
        # A login goes along, so only to the registry itself.
        if http.origin(place) != http.origin(self._base):
            raise DownloadFailed(f"{self.ref.registry} wants the upload sent to another server.")
        place += f"{'&' if '?' in place else '?'}digest={blob.digest}"
        headers = {
            "Content-Type": "application/octet-stream", "Content-Length": str(blob.size),
            **self._authority.headers,
        }  # fmt: skip
        with self._client.open("PUT", place, headers=headers, body=pieces) as response:
            self._expect(response, 201)

    def put_manifest(self, content: bytes, media_type: str = MEDIA_TYPE) -> None:
        """Let the reference mean a manifest.

        Raises:
            Transient, DownloadFailed: it cannot be done.
        """
        headers = {"Content-Type": media_type}
        path = f"/manifests/{self.ref.manifest}"
        with self._ask("PUT", path, headers=headers, body=content) as response:
            self._expect(response, 201)

    @contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        follow: bool = False,
    ) -> Iterator[BaseHTTPResponse]:
        """An answer that is not 401: after one of these a login is tried, once."""
        for attempt in (1, 2):
            sent = {**(headers or {}), **self._authority.headers}
            with self._client.open(
                method, self._base + path, headers=sent, body=body, follow=follow
            ) as response:
                challenge = response.headers.get("WWW-Authenticate", "")
                if response.status != 401:
                    yield response
                    return
            if attempt == 2 or not challenge:
                raise self._authority.refused(f"It answers 401 for {self.ref.repository}.")
            self._authority.answer(challenge)

    def _expect(self, response: BaseHTTPResponse, *fine: int) -> None:
        status = response.status
        if status in fine:
            return
        where = f"{self.ref.registry}: status {status}"
        if status == 404:
            raise ImageNotFound(
                f"{self.ref.registry} has no {self.ref}.",
                hint="Check its name; an image that is not public may hide itself so: "
                f"docker login {self.ref.registry}",
                ref=str(self.ref),
            )
        if status == 403:
            raise self._authority.refused(f"It answers 403: {_said(response)}")
        if status in (408, 425, 429) or status >= 500:
            raise Transient(where, wait_s=_retry_after(response))
        raise DownloadFailed(
            f"{where}: {_said(response)}", registry=str(self.ref.registry), status=status
        )


def wrong_size(ref: str, blob: Blob, found: int) -> DigestMismatch:
    """The error of content that is longer or shorter than it should be."""
    return DigestMismatch(
        f"A part of {ref} has {found} bytes instead of {blob.size}: it is not what was published.",
        hint="Nothing of it was kept. Something on the way changes it, or the registry is broken.",
        ref=ref, expected=blob.digest,
    )  # fmt: skip


def _range(response: BaseHTTPResponse, offset: int) -> tuple[int, int | None]:
    """Where the body begins, and how long all of it is, as far as the server says."""
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if re.fullmatch(r"[0-9]{1,19}", length) else None
    text = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19}|\*)", text)
    if not found:
        # A 206 that does not say which part it is cannot be used.
        return -1, None
    begin = int(found[1]) if found[1] else -1
    return begin, None if found[2] == "*" else int(found[2])


def _pieces(response: BaseHTTPResponse, registry: str) -> Iterator[bytes]:
    try:
        while piece := response.read1(PIECE):
            yield piece
    except (HTTPError, OSError) as error:
        raise Transient(f"{registry}: {http.reason(error)}") from error


def _retry_after(response: BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_S) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _said(response: BaseHTTPResponse) -> str:
    """The registry's own words, as its API has them."""
    try:
        found = json.loads(http.read_limited(response, MAX_ERROR, "The answer"))
        text = "; ".join(str(one.get("message") or one.get("code")) for one in found["errors"])
    except (ValueError, KeyError, TypeError, AttributeError, Transient, DownloadFailed):
        return "it does not say why"
    return "".join(c for c in text if c.isprintable())[:200]
