"""The public key that must have signed images, and what is known of an image's signature.

Nothing compiled is needed for this, so a supervisor can read it; `images/signature.py` verifies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from pathlib import Path

from attrs import field, frozen

from sandbox_rpc.host import files
from sandbox_rpc.images.store import SIGNED
from sandbox_rpc.protocol.errors import SettingInvalid

SETTING = "pull.key"
MAX_KEY = 1 << 16
_PEM = re.compile(r"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")


@frozen
class Key:
    """A public key; checked by its form only until something is verified with it."""

    pem: str = field(repr=False)
    path: str
    """Where it was read, for messages."""

    @property
    def fingerprint(self) -> str:
        """`sha256:…` of the key itself, however its file is laid out."""
        found = _PEM.fullmatch(self.pem)
        assert found is not None
        return f"sha256:{hashlib.sha256(base64.b64decode(found[1])).hexdigest()}"


def read_key(path: str) -> Key | None:
    """The key of the setting; None where it names none.

    Raises:
        SettingInvalid: the file is no public key.
    """
    if not path:
        return None
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_KEY).decode("ascii", "replace")
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}") from None
    found = _PEM.fullmatch(text)
    try:
        if found and base64.b64decode(re.sub(r"\s", "", found[1]), validate=True):
            return Key(text, path)
    except binascii.Error:
        pass
    raise unusable(path, "is no public key in the form that cosign writes")


def remember(folder: Path, key: Key) -> None:
    """Note beside an image's files that it is signed; the caller holds the cache's lock."""
    if folder.is_dir():
        known = sorted({*_remembered(folder), key.fingerprint})
        files.replace(folder / SIGNED, json.dumps({"keys": known}) + "\n")


def is_remembered(folder: Path, key: Key) -> bool:
    """Whether the signature by this key was seen when the image was pulled."""
    return key.fingerprint in _remembered(folder)


def _remembered(folder: Path) -> list[str]:
    try:
        keys = json.loads((folder / SIGNED).read_bytes())["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [one for one in keys if isinstance(one, str)] if isinstance(keys, list) else []


def unusable(path: str, why: str) -> SettingInvalid:
    """The error of a file that holds no key that can be used."""
    return SettingInvalid(
        f"{path} {why}.",
        hint="It should be the file that `cosign generate-key-pair` calls cosign.pub.",
        setting=SETTING,
    )
