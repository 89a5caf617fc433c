"""Which image a start takes: the folder's own, the default, one that is built instead."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from sandbox_rpc.config.choices import BuildWhen
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import locks, names
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build, child, reference, refs, store
from sandbox_rpc.images import key as keys
from sandbox_rpc.images.key import Key
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import (
    BuildFailed,
    DigestMismatch,
    DownloadFailed,
    ImageNotFound,
    ImageUnsigned,
    SandboxError,
    SettingInvalid,
)
from sandbox_rpc.protocol.progress import Progress
from sandbox_rpc.protocol.types import Sandbox, State
from sandbox_rpc.supervisor import image as images
from sandbox_rpc.supervisor.image import Choice
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.state import Store
from tests.unit.images.conftest import FACTS

REF = "registry.example.org/team/image:1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "cache")
    layout.make()
    (tmp_path / "work").mkdir()
    names.allot(layout, str(tmp_path / "work"), "box")
    return layout


class World:
    """What lies outside: a registry, and a build."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pulled: list[tuple[str, bool]] = []
        self.built = 0
        self.refuses: SandboxError | None = None
        self.content = "one"
        self.meanwhile: str | None = None
        """What somebody else gives the name to, before we look."""

    def publish(self, ref: str, content: str, *, chosen: bool, **more: Any) -> StoredImage:
        folder = self.layout.staging / f"staged-{content}"
        folder.mkdir()
        for name in (store.DISK, store.KERNEL, store.INITRD):
            (folder / name).write_text(content)
        digest = store.describe(folder, FACTS)
        return store.publish(self.layout, ref, folder, digest, chosen=chosen, **more)

    async def run(self, layout: Layout, verb: str, *_: object, **params: Any) -> dict[str, Any]:
        assert verb in ("pull", "check")
        self.pulled.append((params["ref"], params.get("patient", True)))
        if self.refuses is not None:
            raise self.refuses
        if verb == "check":
            return {}
        manifest = "sha256:" + "a" * 64
        image = self.publish(
            params["ref"], self.content, chosen=params["chosen"], manifest=manifest
        )
        if params["key"]:
            keys.remember(image.folder, convert.from_wire(params["key"], Key))
        if self.meanwhile is not None:
            self.publish(params["ref"], self.meanwhile, chosen=True)
        return {"ref": params["ref"], "digest": image.digest}

    async def build(self, layout: Layout, ref: str, *_: object, **more: Any) -> StoredImage:
        self.built += 1
        return self.publish(ref, f"built-{self.built}", chosen=more["chosen"])


@pytest.fixture
def world(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(layout)
    monkeypatch.setattr(child, "run", world.run)
    monkeypatch.setattr(build, "build", world.build)
    return world


def started(
    layout: Layout, settings: Settings | None = None, told: Callable[[Progress], None] | None = None
) -> Choice:
    """What a start does about its image."""
    place = Place(layout, "box")
    place.room.folder.mkdir(parents=True, exist_ok=True)
    sandbox = names.read(layout, "box")
    state = Store(place.room, Sandbox("box", State.STARTING, sandbox.workspace))
    settings = settings or Settings()
    choice = anyio.run(images.claim, place, settings, state, told or (lambda _: None))
    assert state.sandbox.image_digest == choice.image.digest
    return choice


def test_the_default_is_pulled_once(layout: Layout, world: World) -> None:
    first = started(layout)
    assert first.image.ref == reference.DEFAULT
    assert first.remarks == []
    assert started(layout) == first
    assert (len(world.pulled), world.built) == (1, 0)


def test_where_it_cannot_be_reached_one_is_built_and_the_start_says_why(
    layout: Layout, world: World
) -> None:
    world.refuses = DownloadFailed("The registry cannot be reached: no answer in time.")
    told: list[Progress] = []
    choice = started(layout, told=told.append)
    assert choice.image.ref == reference.BUILT
    (remark,) = choice.remarks
    assert "no answer in time" in remark
    assert "built on this machine" in remark
    assert any("no answer in time" in one.message for one in told)
    # Not asked for long, and from then on nobody is asked.
    assert world.pulled == [(reference.DEFAULT, False)]
    world.refuses = None
    again = started(layout)
    assert again.image == choice.image
    assert again.remarks == []
    assert (len(world.pulled), world.built) == (1, 1)


def test_the_built_one_stands_in_for_every_folder(layout: Layout, world: World) -> None:
    image = world.publish(reference.BUILT, "built", chosen=True)
    assert started(layout).image == image
    assert world.pulled == []


def test_build_when(layout: Layout, world: World) -> None:
    world.refuses = DownloadFailed("no")
    with pytest.raises(DownloadFailed):
        started(layout, Settings(build_when=BuildWhen.NEVER))
    assert (world.built, world.pulled[-1]) == (0, (reference.DEFAULT, True))
    world.pulled.clear()
    assert started(layout, Settings(build_when=BuildWhen.ALWAYS)).image.ref == reference.BUILT
    assert (world.built, world.pulled) == (1, [])


@pytest.mark.parametrize(
    "error", [DigestMismatch("tampered"), BuildFailed("x"), ImageUnsigned("x")]
)
def test_what_is_wrong_with_it_is_not_hidden_by_a_build(
    layout: Layout, world: World, error: SandboxError
) -> None:
    world.refuses = error
    with pytest.raises(type(error)):
        started(layout)
    assert world.built == 0


def test_another_image_is_pulled_by_the_first_start_and_never_replaced(
    layout: Layout, world: World
) -> None:
    settings = Settings(image=REF)
    assert started(layout, settings).image.ref == REF
    assert started(layout, settings).image.ref == REF
    assert world.pulled == [(REF, True)]
    world.refuses = DownloadFailed("no")
    with pytest.raises(DownloadFailed):
        started(layout, Settings(image="registry.example.org/other:1"))
    assert world.built == 0


def test_what_is_only_local_is_not_looked_for_elsewhere(layout: Layout, world: World) -> None:
    for ref in ("local/nothing", "nothing", "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFound):
            started(layout, Settings(image=ref))
    assert world.pulled == []
    assert started(layout, Settings(image=reference.BUILT)).image.ref == reference.BUILT
    assert world.built == 1


def test_by_digest(layout: Layout, world: World) -> None:
    image = world.publish("local/a", "a", chosen=True)
    for digest in (image.digest, image.digest[:19], image.digest[7:20]):
        assert started(layout, Settings(image=digest)).image.digest == image.digest


def test_a_folder_keeps_its_image_until_somebody_chooses_another(
    layout: Layout, world: World
) -> None:
    settings = Settings(image=REF)
    first = started(layout, settings).image
    # Another folder's start pulls, as nobody's choice: this one stays.
    world.publish(REF, "two", chosen=False, manifest="sha256:" + "b" * 64)
    kept = started(layout, settings).image
    assert kept.digest == first.digest
    # `image pull` moves everybody on.
    chosen = world.publish(REF, "three", chosen=True, manifest="sha256:" + "c" * 64)
    assert started(layout, settings).image.digest == chosen.digest
    assert started(layout, settings).image.digest == chosen.digest


def test_a_folder_that_began_with_a_built_one_keeps_it_when_the_default_comes(
    layout: Layout, world: World
) -> None:
    world.refuses = DownloadFailed("no")
    built = started(layout).image
    world.publish(reference.DEFAULT, "published", chosen=False)
    assert started(layout).image.digest == built.digest
    chosen = world.publish(reference.DEFAULT, "published", chosen=True)
    assert started(layout).image.digest == chosen.digest


def test_another_setting_is_another_image(layout: Layout, world: World) -> None:
    started(layout, Settings(image=REF))
    local = world.publish("local/b", "b", chosen=True)
    assert started(layout, Settings(image="local/b")).image.digest == local.digest


def test_a_kept_image_that_was_removed_is_not_missed(layout: Layout, world: World) -> None:
    first = started(layout).image
    world.publish(reference.DEFAULT, "two", chosen=False)
    store.remove(layout, first.digest)
    assert started(layout).image.digest != first.digest


def test_a_tag_that_has_moved_is_said(layout: Layout, world: World) -> None:
    started(layout)
    entry = refs.read(layout, reference.DEFAULT)
    assert entry is not None
    with locks.held(layout.cache_lock):
        refs.write(layout, attrs.evolve(entry, newer="sha256:" + "f" * 64))
    (remark,) = started(layout).remarks
    assert "sandbox image pull" in remark
    assert len(world.pulled) == 1


def test_the_registry_is_asked_once_a_day_and_not_at_all_where_that_is_off(
    layout: Layout, world: World
) -> None:
    settings = Settings(image=REF)

    def look(settings: Settings = settings) -> int:
        world.pulled.clear()
        world.refuses = DownloadFailed("no")
        anyio.run(images.look_daily, layout, settings)
        world.refuses = None
        return len(world.pulled)

    assert look() == 0, "nothing here"
    started(layout, settings)
    assert look() == 1
    assert look(Settings(image=REF, pull_check=False)) == 0
    entry = refs.read(layout, REF)
    assert entry is not None
    now = datetime.datetime.now(datetime.UTC)
    for age, asked in ((0.0, 0), (23.0, 0), (25.0, 1), (-48.0, 1)):
        at = (now - datetime.timedelta(hours=age)).isoformat()
        with locks.held(layout.cache_lock):
            refs.write(layout, attrs.evolve(entry, checked_at=at))
        assert look() == asked, age
    with locks.held(layout.cache_lock):
        refs.write(layout, attrs.evolve(entry, checked_at="nonsense"))
    look()


def key_file(folder: Path, content: bytes = b"one key") -> str:
    """What looks like a public key: nothing is verified here."""
    path = folder / f"{content.hex()}.pub"
    text = base64.b64encode(content).decode()
    path.write_text(f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    return str(path)


def test_with_a_key_an_image_is_asked_for_until_it_is_known_to_be_signed(
    layout: Layout, world: World, tmp_path: Path
) -> None:
    """By the folder that has it already, too; and each key is remembered."""
    plain = started(layout, Settings(image=REF)).image
    one, other = (key_file(tmp_path, name) for name in (b"one", b"two"))
    for path in (one, one, other, one, other):
        assert started(layout, Settings(image=REF, pull_key=path)).image.digest == plain.digest
    assert world.pulled == [(REF, True)] * 3
    world.refuses = ImageUnsigned("no")
    with pytest.raises(ImageUnsigned):
        started(layout, Settings(image=REF, pull_key=key_file(tmp_path, b"three")))
    # Without one, all is as ever.
    assert started(layout, Settings(image=REF)).image.digest == plain.digest


def test_what_was_verified_is_taken_whoever_moves_the_name(
    layout: Layout, world: World, tmp_path: Path
) -> None:
    world.meanwhile = "somebody else's"
    image = started(layout, Settings(image=REF, pull_key=key_file(tmp_path))).image
    assert image.disk.read_text() == "one"
    assert image.ref == REF
    assert store.resolve(layout, REF).disk.read_text() == "somebody else's"


def test_what_stays_here_needs_no_signature(layout: Layout, world: World, tmp_path: Path) -> None:
    settings = Settings(pull_key=key_file(tmp_path))
    image = world.publish("local/a", "a", chosen=True)
    for name in ("local/a", image.digest):
        named = attrs.evolve(settings, image=name)
        assert started(layout, named).image.digest == image.digest
    # One that was built here stands in for a default that is not here, not for one that is.
    built = world.publish(reference.BUILT, "built", chosen=True)
    assert started(layout, settings).image.digest == built.digest
    assert world.pulled == []
    world.publish(reference.DEFAULT, "published", chosen=True)
    assert started(layout, settings).image.ref == reference.DEFAULT
    assert world.pulled == [(reference.DEFAULT, False)]


def test_a_key_that_is_none_stops_the_start(layout: Layout, world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="cannot be read"):
        started(layout, Settings(pull_key=str(tmp_path / "nothing")))
    assert world.pulled == []
