"""Whether somebody whose key is known has signed an image, as cosign signs with a key.

cosign 1 and 2 keep the signatures of the manifest `sha256:HEX` as a manifest of its own in the same
repository, under the tag `sha256-HEX.sig`; cosign 3 does with `--new-bundle-format=false`. Each of
its layers is a signed text that names the manifest; the signature over it is an annotation.
Source: sigstore/cosign, specs/SIGNATURE_SPEC.md; the tests are judged by cosign 2.5.

What the text says of the repository's name is not looked at, as `cosign verify` does not either:
a mirror has another one, and the digest means the same bytes everywhere.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sandbox_rpc.images import manifest
from sandbox_rpc.images.fetch import Source
from sandbox_rpc.images.key import SETTING, Key, unusable
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.protocol.errors import (
    DigestMismatch,
    ImageInvalid,
    ImageNotFound,
    ImageUnsigned,
)

TEXT = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
MAX_TEXT = 1 << 16
"""Bytes of a signed text; cosign's have 250."""
MIN_RSA = 2048
Verify = Callable[[bytes, bytes], bool]
"""Whether a signature over a text is good."""


def check(source: Source, ref: str, digest: str, key: Key) -> None:
    """See that the key has signed a manifest.

    Raises:
        ImageUnsigned: it has not.
        SettingInvalid: it is none that can be used.
        Transient, DownloadFailed: the signatures cannot be had.
    """
    verify = _verifier(key)
    try:
        found = manifest.parse(source.manifest(f"{digest.replace(':', '-')}.sig"), ref)
    except ImageNotFound:
        raise _unsigned(ref, digest, key, "it has no signature that is known here") from None
    except ImageInvalid:
        raise _unsigned(ref, digest, key, "what should be its signatures is no manifest") from None
    layers = found.get("layers")
    for layer in layers[: manifest.MAX_LAYERS] if isinstance(layers, list) else []:
        if _holds(source, layer, digest, ref, verify):
            return
    raise _unsigned(ref, digest, key, "none of its signatures is by this key")


def _holds(source: Source, layer: object, digest: str, ref: str, verify: Verify) -> bool:
    """Whether a layer is a signature of the manifest that holds."""
    if not isinstance(layer, dict) or layer.get("mediaType") != TEXT:
        return False
    try:
        blob = manifest.blob_of(layer, ref, MAX_TEXT)
        signature = base64.b64decode(layer["annotations"][ANNOTATION], validate=True)
    except (ImageInvalid, KeyError, TypeError, ValueError):
        return False
    try:
        text = _text(source, blob)
    except (ImageNotFound, DigestMismatch):
        return False  # the next one may be good
    # First whether the text is the signer's; only then is it read.
    if manifest.digest_of(text) != blob.digest or not verify(signature, text):
        return False
    try:
        return bool(json.loads(text)["critical"]["image"]["docker-manifest-digest"] == digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _text(source: Source, blob: Blob) -> bytes:
    content = bytearray()
    with source.blob(blob, 0) as (_, pieces):
        for piece in pieces:
            content += piece
            if len(content) > blob.size:
                break
    return bytes(content)


def _verifier(key: Key) -> Verify:
    """Whether a signature over a text is by the key.

    ECDSA as cosign 2 signs, with SHA-256 on every curve, or with the curve's own hash; RSA in
    PKCS #1 v1.5; Ed25519 over the text itself.
    """
    # Compiled, so imported on use.
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    try:
        public = serialization.load_pem_public_key(key.pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise unusable(key.path, "is no public key that can be used") from None

    ways: list[tuple[Any, ...]]
    match public:
        case ec.EllipticCurvePublicKey():
            own = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
            ways = [(ec.ECDSA(hashes.SHA256()),)]
            ways += [(ec.ECDSA(one),) for name, one in own.items() if name == public.curve.name]
        case rsa.RSAPublicKey() if public.key_size >= MIN_RSA:
            ways = [(padding.PKCS1v15(), hashes.SHA256())]
        case rsa.RSAPublicKey():
            raise unusable(key.path, f"is an RSA key of less than {MIN_RSA} bits")
        case ed25519.Ed25519PublicKey():
            ways = [()]
        case _:
            raise unusable(key.path, "is of a kind that does not sign images")
    verifying: Any = public.verify

    def verify(signature: bytes, text: bytes) -> bool:
        for way in ways:
            with suppress(InvalidSignature):
                verifying(signature, text, *way)
                return True
        return False

    return verify


def _unsigned(ref: str, digest: str, key: Key, why: str) -> ImageUnsigned:
    return ImageUnsigned(
        f"{ref} is not taken: {why} ({SETTING} = {key.path}).", ref=ref, manifest=digest
    )
