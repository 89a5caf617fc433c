"""Signed images: cosign signs, we look; and what somebody without the key may try."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from sandbox_rpc.config.values import Settings
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import check as look_up
from sandbox_rpc.images import manifest, pull, reference, signature, store
from sandbox_rpc.images.key import Key, read_key
from sandbox_rpc.images.manifest import Blob
from sandbox_rpc.images.registry import Registry as Remote
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import (
    DigestMismatch,
    ImageNotFound,
    ImageUnsigned,
    SettingInvalid,
)
from sandbox_rpc.supervisor import image as images
from tests.registry.conftest import Artifact, publish
from tests.registry.debian import Debian
from tests.registry.faults import Faulty
from tests.registry.server import Registry
from tests.registry.test_processes import Commands
from tests.registry.test_processes import sandbox as sandbox

pytestmark = pytest.mark.usefixtures("brisk")

Sign = Callable[[bytes], bytes]


def got(layout: Layout, ref: str, key: Key | None = None) -> StoredImage:
    """What `sandbox image pull` does, in this process."""
    return anyio.run(partial(pull.pull, layout, ref, lambda _: None, chosen=True, key=key))


def refused(layout: Layout, ref: str, key: Key) -> str:
    """Why it is not taken; nothing of it may be there."""
    with pytest.raises(ImageUnsigned) as caught:
        got(layout, ref, key)
    assert store.list_images(layout) == []
    assert [path for path in layout.ingest.iterdir() if path.suffix != ".lock"] == []
    return caught.value.message


@frozen
class Cosign:
    """The program, and a key pair of its own making."""

    program: Path
    folder: Path

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [str(self.program), *words], cwd=self.folder, capture_output=True, text=True,
            timeout=120, check=False,
            env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sign(self, ref: str) -> None:
        """Sign what a reference means, and say so to nobody else."""
        self(
            "sign", "--yes", "--tlog-upload=false", "--allow-http-registry",
            "--key", "cosign.key", ref,
        )  # fmt: skip

    @property
    def key(self) -> Key:
        found = read_key(str(self.folder / "cosign.pub"))
        assert found is not None
        return found


@pytest.fixture(scope="session")
def cosign(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    program = Cosign(debian.program("cosign"), tmp_path_factory.mktemp("cosign"))
    program("generate-key-pair")
    return program


@pytest.fixture
def image(
    registry: Registry, artifact: Artifact, request: pytest.FixtureRequest
) -> tuple[str, str]:
    """An image that nobody has signed, for this test alone: its reference and its digest."""
    # A repository of its own: signatures are named by what they sign, and that is always the same.
    name = f"signed/{re.sub('[^a-z]+', '-', request.node.name).strip('-')}:1"
    return f"{registry.host}/{name}", publish(registry.host, name, artifact.packed)


def write_key(path: Path, public: Any) -> Key:
    """A key as a setting would name it."""
    path.write_bytes(
        public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    found = read_key(str(path))
    assert found is not None
    return found


def text_for(digest: str) -> bytes:
    return json.dumps({"critical": {"image": {"docker-manifest-digest": digest}}}).encode()


def put(ref: str, digest: str, layers: list[tuple[bytes, dict[str, Any]]]) -> None:
    """What somebody who may write to the repository puts where the signatures belong."""
    name = reference.parse(f"{ref.rpartition(':')[0]}:{digest.replace(':', '-')}.sig")
    remote = Remote(name, push=True)
    config = Blob(manifest.digest_of(b"{}"), 2, "application/vnd.oci.image.config.v1+json")
    for data in (b"{}", *(text for text, _ in layers)):
        blob = Blob(manifest.digest_of(data), len(data))
        if not remote.has(blob):
            remote.upload(blob, [data])
    value = {
        "schemaVersion": 2, "mediaType": manifest.MANIFEST,
        "config": manifest.described(config),
        "layers": [layer_of(text, more) for text, more in layers],
    }  # fmt: skip
    remote.put_manifest(json.dumps(value).encode())


def signed(text: bytes, sign: Sign) -> tuple[bytes, dict[str, Any]]:
    """A layer with a signature."""
    annotation = base64.b64encode(sign(text)).decode()
    return text, {"annotations": {signature.ANNOTATION: annotation}}


def layer_of(text: bytes, more: dict[str, Any]) -> dict[str, Any]:
    """What the signatures' manifest says of one of them."""
    return manifest.described(Blob(manifest.digest_of(text), len(text), signature.TEXT)) | more


def one_signature(folder: Path) -> tuple[str, Key, bytes, dict[str, Any]]:
    """A digest, the key that has signed it, the signed text, and its layer."""
    private = ec.generate_private_key(ec.SECP256R1())
    key = write_key(folder / "key.pub", private.public_key())
    digest = "sha256:" + "1" * 64
    text, more = signed(text_for(digest), ecdsa(private))
    return digest, key, text, layer_of(text, more)


def ecdsa(private: ec.EllipticCurvePrivateKey) -> Sign:
    return lambda text: private.sign(text, ec.ECDSA(hashes.SHA256()))


def test_what_cosign_has_signed_is_taken(
    cosign: Cosign, registry: Registry, faulty: Faulty, layout: Layout, image: tuple[str, str],
    artifact: Artifact,
) -> None:  # fmt: skip
    ref, digest = image
    assert "it has no signature that is known here" in refused(layout, ref, cosign.key)
    cosign.sign(f"{ref.rpartition(':')[0]}@{digest}")
    first = got(layout, ref, cosign.key)
    assert first.manifest == digest
    # Once more, through a server that counts: the signature is asked for, and nothing else.
    elsewhere = ref.replace(registry.host, faulty.host)
    assert got(layout, elsewhere, cosign.key).digest == first.digest
    disk = manifest.digest_of(artifact.packed)
    assert [one.path for one in faulty.blobs if disk in one.path] == []
    assert len(faulty.blobs) == 1


def test_a_start_takes_what_was_seen_to_be_signed(
    cosign: Cosign, layout: Layout, image: tuple[str, str], tmp_path: Path
) -> None:
    ref, digest = image
    got(layout, ref)
    path = str(tmp_path / "other.pub")
    other = write_key(Path(path), ec.generate_private_key(ec.SECP256R1()).public_key())
    settings = Settings(image=ref, pull_key=str(cosign.folder / "cosign.pub"))

    def start(settings: Settings) -> StoredImage:
        return anyio.run(images.ensure, layout, None, settings, lambda _: None).image

    # It was pulled by somebody who did not ask.
    assert images.find(layout, None, ref) is not None
    assert images.find(layout, None, ref, cosign.key) is None
    with pytest.raises(ImageUnsigned, match="it has no signature that is known here"):
        start(settings)
    cosign.sign(f"{ref.rpartition(':')[0]}@{digest}")
    assert start(settings).manifest == digest
    # From here on without the registry.
    assert images.find(layout, None, ref, cosign.key) is not None
    assert images.find(layout, None, ref, other) is None
    with pytest.raises(ImageUnsigned, match="none of its signatures is by this key"):
        start(Settings(image=ref, pull_key=path))


def test_a_tag_that_has_moved_to_what_nobody_has_signed(
    cosign: Cosign, registry: Registry, layout: Layout, image: tuple[str, str], artifact: Artifact
) -> None:
    """Is not said: a pull would be refused."""
    ref, digest = image
    name = ref.rpartition(":")[0]
    cosign.sign(f"{name}@{digest}")
    got(layout, ref, cosign.key)

    def look(key: Key | None) -> str | None:
        return anyio.run(look_up.check, layout, ref, key)["newer"]

    newer = publish(registry.host, ref.partition("/")[2], artifact.packed, old=True)
    assert newer != digest
    assert look(cosign.key) is None
    assert look(None) == newer
    cosign.sign(f"{name}@{newer}")
    assert look(cosign.key) == newer


def test_other_kinds_of_keys(
    layout: Layout, image: tuple[str, str], tmp_path: Path, registry: Registry
) -> None:
    ref, digest = image
    text = text_for(digest)
    rsa_key = rsa.generate_private_key(65537, 2048)
    ed_key = ed25519.Ed25519PrivateKey.generate()
    p384 = ec.generate_private_key(ec.SECP384R1())
    p521 = ec.generate_private_key(ec.SECP521R1())
    # Several people have signed; some programs take the hash that belongs to the curve.
    put(ref, digest, [
        signed(text, ecdsa(p384)),
        signed(text, lambda one: p521.sign(one, ec.ECDSA(hashes.SHA512()))),
        signed(text, lambda one: rsa_key.sign(one, padding.PKCS1v15(), hashes.SHA256())),
        signed(text, ed_key.sign),
    ])  # fmt: skip
    for private in (p384, p521, rsa_key, ed_key):
        key = write_key(tmp_path / "key.pub", private.public_key())
        assert got(layout, ref, key).manifest == digest


@pytest.mark.parametrize(
    "what",
    ["of another image", "of another text", "of nothing", "not a signature", "no layers",
     "layers of another kind", "a text that is none", "far too long"],
)  # fmt: skip
def test_what_only_looks_signed_is_refused(
    registry: Registry, layout: Layout, image: tuple[str, str], tmp_path: Path, what: str
) -> None:
    ref, digest = image
    private = ec.generate_private_key(ec.SECP256R1())
    sign = ecdsa(private)
    key = write_key(tmp_path / "key.pub", private.public_key())
    text = text_for(digest)
    good = signed(text, sign)
    layers: list[tuple[bytes, dict[str, Any]]]
    match what:
        case "of another image":
            layers = [signed(text_for("sha256:" + "0" * 64), sign)]
        case "of another text":
            layers = [(text, signed(text + b" ", sign)[1])]
        case "of nothing":
            layers = [(text, {})]
        case "not a signature":
            layers = [(text, {"annotations": {signature.ANNOTATION: "!" * 96}})]
        case "no layers":
            layers = []
        case "layers of another kind":
            layers = [(text, good[1] | {"mediaType": "application/json"})]
        case "a text that is none":
            layers = [signed(b"[" * 5000, sign), signed(b'{"critical": 1}', sign)]
        case _:
            layers = [signed(text + b" " * signature.MAX_TEXT, sign)]
    put(ref, digest, layers)
    assert "none of its signatures is by this key" in refused(layout, ref, key)
    # And the good one among them is found.
    put(ref, digest, [*layers, good])
    assert got(layout, ref, key).manifest == digest


class Odd:
    """A registry that no honest one is like."""

    def __init__(self, content: bytes, pieces: list[bytes] | None = None) -> None:
        self.content = content
        self.pieces = pieces or []

    def manifest(self, name: str) -> bytes:
        return self.content

    @contextmanager
    def blob(self, blob: Blob, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        yield 0, iter(self.pieces)


@pytest.mark.parametrize("content", [b'{"schemaVersion": 2, "layers": 7}', b"[]", b"\xff", b""])
def test_signatures_that_are_no_manifest(tmp_path: Path, content: bytes) -> None:
    key = write_key(tmp_path / "key.pub", ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(ImageUnsigned):
        signature.check(Odd(content), "a/b:1", "sha256:" + "0" * 64, key)


def test_another_text_than_the_one_that_was_announced(tmp_path: Path) -> None:
    """Signed as well, so it is its digest alone that gives it away."""
    digest, key, text, layer = one_signature(tmp_path)
    content = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
    signature.check(Odd(content, [text]), "a/b:1", digest, key)
    for pieces in ([text, b" "], [text[:-1]], [], [b"x" * len(text), b"y" * 1000]):
        with pytest.raises(ImageUnsigned):
            signature.check(Odd(content, pieces), "a/b:1", digest, key)


def test_what_is_no_key_is_said_before_anything_is_asked(tmp_path: Path, layout: Layout) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "private").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "empty").write_text("")
    assert read_key("") is None
    for name in ("private", "noise", "empty", "nothing", "."):
        with pytest.raises(SettingInvalid) as caught:
            read_key(str(tmp_path / name))
        assert caught.value.details["setting"] == "pull.key"
    # In the right dress, and still none.
    (tmp_path / "dressed").write_text(
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    )
    odd = read_key(str(tmp_path / "dressed"))
    other = write_key(tmp_path / "dsa", dsa.generate_private_key(2048).public_key())
    weak = write_key(tmp_path / "rsa", rsa.generate_private_key(65537, 1024).public_key())
    for key in (odd, other, weak):
        assert key is not None
        with pytest.raises(SettingInvalid):
            signature.check(Odd(b"{}"), "a/b:1", "sha256:" + "0" * 64, key)


def test_a_broken_signature_does_not_hide_a_good_one(tmp_path: Path) -> None:
    digest, key, text, good = one_signature(tmp_path)
    layers = [good | {"digest": f"sha256:{number * 64}"} for number in "23"] + [good]

    class Broken(Odd):
        @contextmanager
        def blob(self, blob: Blob, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
            if blob.hex[0] == "2":
                raise ImageNotFound("gone")
            if blob.hex[0] == "3":
                raise DigestMismatch("too long")
            yield 0, iter([text])

    for count in (3, 2):
        content = json.dumps({"schemaVersion": 2, "layers": layers[:count]}).encode()
        if count == 3:
            signature.check(Broken(content), "a/b:1", digest, key)
        else:
            with pytest.raises(ImageUnsigned, match="none of its signatures"):
                signature.check(Broken(content), "a/b:1", digest, key)


@pytest.mark.parametrize("what", ["index", "child"])
def test_an_index_is_signed_as_a_whole(
    cosign: Cosign, registry: Registry, layout: Layout, image: tuple[str, str], what: str
) -> None:
    ref, digest = image
    repository = ref.rpartition(":")[0]
    child = Remote(reference.parse(f"{repository}@{digest}")).manifest(digest)
    described = {"mediaType": manifest.MANIFEST, "digest": digest, "size": len(child)}
    value = {"schemaVersion": 2, "mediaType": manifest.INDEX, "manifests": [described]}
    content = json.dumps(value).encode()
    remote = Remote(reference.parse(f"{repository}:all"), push=True)
    remote.put_manifest(content, manifest.INDEX)
    top = manifest.digest_of(content)
    cosign.sign(f"{repository}@{top if what == 'index' else digest}")
    if what == "index":
        assert got(layout, f"{repository}:all", cosign.key).manifest == digest
    else:
        assert "no signature that is known" in refused(layout, f"{repository}:all", cosign.key)
        # By its own name it is what was signed.
        assert got(layout, ref, cosign.key).manifest == digest


def test_the_command(
    cosign: Cosign, sandbox: Commands, image: tuple[str, str], tmp_path: Path
) -> None:
    ref, digest = image
    key = str(cosign.folder / "cosign.pub")
    own = tmp_path / ".config" / "sandbox" / "config.toml"
    own.parent.mkdir(parents=True)
    for words, text in ((["--pull-key", key], ""), ([], f"[pull]\nkey = '{key}'\n")):
        own.write_text(text)
        said = sandbox.run("image", "pull", *words, ref, status=12)
        assert "it has no signature that is known here" in said
        assert "Traceback" not in said
        assert sandbox.json("image", "list") == []
    cosign.sign(f"{ref.rpartition(':')[0]}@{digest}")
    assert sandbox.run("image", "pull", ref).startswith(f"{ref} is here: sha256:")
    (listed,) = sandbox.json("image", "list")
    assert listed["manifest"] == digest
    said = sandbox.run("image", "pull", "--pull-key", str(tmp_path / "nothing"), ref, status=11)
    assert "cannot be read" in said
