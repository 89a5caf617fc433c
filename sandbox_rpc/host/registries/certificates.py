"""Certificates of authorities that this host trusts and its distribution does not.

A company's, most often. Only CERTIFICATE blocks of the files are looked at: a private key that lies
beside them is never taken up.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from sandbox_rpc.host.registries.sources import Sources

MAX_BYTES = 12_288
"""Of all together, in DER; they go over SMBIOS with all else that the guest is told."""
MAX_FILES = 500
VARIABLES = (
    "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)  # fmt: skip
ANCHORS = (
    "usr/local/share/ca-certificates",
    "etc/pki/ca-trust/source/anchors",
    "etc/ca-certificates/trust-source/anchors",
    "usr/local/share/ca-certificates/trust-source/anchors",
)
"""Where an administrator puts authorities: Debian, Fedora, Arch."""
BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ca-certificates/extracted/tls-ca-bundle.pem",
)
"""All that a distribution's programs trust, made by its tools from its own and the anchors."""
DISTRIBUTIONS = (
    ("usr/share/ca-certificates/mozilla", ".crt"),
    ("usr/share/pki/ca-trust-source", ".p11-kit"),
    ("usr/share/ca-certificates/trust-source", ".p11-kit"),
)
"""A distribution's own: folder, and how the files' names end."""

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def read(sources: Sources) -> tuple[bytes, ...]:
    """The certificates, DER, each once; those that do not fit are left out with a warning."""
    known = set(chain.from_iterable(_blocks(sources, path) for path in _distribution(sources)))
    found: dict[bytes, str] = {}
    for path in _files(sources, compares=bool(known)):
        for block in _blocks(sources, path):
            if block not in known:
                found.setdefault(block, str(path))
    for text in sources.inline:
        for block in _split(text.encode()):
            if block not in known:
                found.setdefault(block, "npm's configuration")
    chosen: list[bytes] = []
    left: dict[str, int] = {}
    size = 0
    for block, file in found.items():
        der = _decoded(block)
        if der is None:
            continue
        if size + len(der) > MAX_BYTES:
            left[file] = left.get(file, 0) + 1
            continue
        size += len(der)
        chosen.append(der)
    for file, count in left.items():
        sources.warn(
            f"{count} of the certificates in {file} do not fit into the {MAX_BYTES >> 10} KiB that "
            "a guest is given, and are left out."
        )
    return tuple(chosen)


def _distribution(sources: Sources) -> Iterator[str]:
    for folder, ending in DISTRIBUTIONS:
        with contextlib.suppress(OSError), os.scandir(sources.system(folder)) as entries:
            # Strings, not paths: there are 150 of them, and a start waits.
            yield from [one.path for one in entries if one.name.endswith(ending)][:MAX_FILES]


def _files(sources: Sources, *, compares: bool) -> Iterator[Path]:
    """The most deliberate ones first: they are the last to be left out."""
    bundles = [sources.system(bundle) for bundle in BUNDLES]
    for folder in ANCHORS:
        yield from sorted(
            path for path in sources.system(folder).rglob("*")
            if path.suffix in (".crt", ".pem", ".cer")
        )[:MAX_FILES]  # fmt: skip
    named = [*filter(None, map(sources.environment.get, VARIABLES)), *sources.bundles]
    same = {path.resolve() for path in bundles}
    for name in dict.fromkeys(named):
        if name.startswith("/") and Path(name).resolve() not in same:
            yield Path(name)
    # Without a list of the distribution's own, all of them would seem to be somebody's.
    yield from bundles if compares else []


def _blocks(sources: Sources, path: Path | str) -> list[bytes]:
    return _split(sources.data(path))


def _split(data: bytes) -> list[bytes]:
    pieces = (piece.partition(END) for piece in data.split(BEGIN)[1:])
    return [b"".join(body.split()) for body, end, _ in pieces if end]


def _decoded(block: bytes) -> bytes | None:
    """A block's DER, if it is one value of the length it says."""
    try:
        der = base64.b64decode(block, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(der) < 4 or der[:2] != b"\x30\x82" or int.from_bytes(der[2:4], "big") + 4 != len(der):
        return None
    return der
