"""Which image a start takes, and how it comes to be here."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import attrs
from attrs import field, frozen

from sandbox_rpc.config.choices import BuildWhen
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import locks, names
from sandbox_rpc.host.names import Pin
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build, child, reference, refs, store
from sandbox_rpc.images import key as keys
from sandbox_rpc.images.key import Key
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import (
    DownloadFailed,
    ImageInvalid,
    ImageNotFound,
    SandboxError,
    StateNewer,
)
from sandbox_rpc.protocol.progress import Progress, Report
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.state import Store

log = logging.getLogger(__name__)

CHECK_EVERY = timedelta(days=1)
ATTEMPTS = 3
"""At claiming an image that somebody removes at the same moment."""


@frozen
class Choice:
    """The image of a start."""

    image: StoredImage
    remarks: list[str] = field(factory=list)
    """What the user should know about it."""


async def claim(place: Place, settings: Settings, state: Store, report: Report) -> Choice:
    """The image of a start, fetched or built where it is missing, and from now on in use.

    Raises:
        ImageNotFound: it is neither here nor where it should come from.
        DownloadFailed, DigestMismatch, ImageInvalid, ImageUnsigned, BuildFailed: it could not be
            had.
    """
    layout = place.layout
    for _ in range(ATTEMPTS):
        choice = await ensure(layout, place.name, settings, report)
        # Whoever removes images holds this lock, and sees in the state which are needed.
        with locks.held(layout.cache_lock):
            image = choice.image
            with suppress(ImageNotFound, ImageInvalid):
                store.load(image.ref, image.folder)
                state.change(image=image.ref, image_digest=image.digest)
                _remember(layout, place.name, settings.image, image)
                return choice
    raise ImageNotFound(f"The image {settings.image} was removed just now.", ref=settings.image)


async def ensure(layout: Layout, name: str | None, settings: Settings, report: Report) -> Choice:
    """The image, here, for a sandbox or for any; errors as in `claim`."""
    wanted = settings.image
    key = keys.read_key(settings.pull_key)
    if (known := await anyio.to_thread.run_sync(find, layout, name, wanted, key)) is not None:
        return known
    if store.is_digest(wanted):
        raise ImageNotFound(f"There is no image {wanted}.", ref=wanted)
    ref = reference.parse(wanted)
    is_default = str(ref) == reference.DEFAULT
    if is_default and settings.build_when is BuildWhen.ALWAYS:
        return Choice(await _build(layout, settings, report))
    if ref.registry is None:
        if str(ref) == reference.BUILT:
            return Choice(await _build(layout, settings, report))
        raise ImageNotFound(f"There is no image {wanted}.", ref=wanted)
    falls_back = is_default and settings.build_when is BuildWhen.UNREACHABLE
    try:
        answer = await child.run(
            layout, "pull", report, ref=str(ref), chosen=False, patient=not falls_back,
            key=convert.to_wire(key),
        )  # fmt: skip
    except (DownloadFailed, ImageNotFound) as error:
        if not falls_back:
            raise
        why = error.message.rstrip(".")
        log.warning("%s cannot be had: %s", ref, why)
        report(Progress("image", f"{why}. Building the image on this machine instead", 0))
        image = await _build(layout, settings, report)
        remark = (
            f"{ref} could not be had ({why}), so {image.ref} was built on this machine and is used."
        )
        return Choice(image, [remark])
    # Not what the name means by now: somebody may have given it to another image since.
    image = await anyio.to_thread.run_sync(store.resolve, layout, answer["digest"])
    return Choice(attrs.evolve(image, ref=str(ref)))


def find(layout: Layout, name: str | None, wanted: str, key: Key | None = None) -> Choice | None:
    """The image that a start takes without asking anyone; None where there is none.

    A folder stays with the image it began with, until somebody chooses another one under the name
    it asks for. Where the default is not here, one that was built here stands in. With a `key`,
    what came from a registry without its signature counts as not here.

    Raises:
        ImageInvalid: what the name means is damaged.
    """
    if store.is_digest(wanted):
        return Choice(store.resolve(layout, wanted))
    ref = str(reference.parse(wanted))
    entry = refs.read(layout, ref)
    pin = names.read(layout, name).image if name is not None else None
    if pin is not None and pin.ref == ref and pin.chosen == (entry.chosen if entry else None):
        with suppress(ImageNotFound, ImageInvalid, StateNewer):
            image = store.resolve(layout, pin.digest)
            if entry is not None and entry.digest == pin.digest:
                image = attrs.evolve(image, ref=ref)
            if _may_be_taken(image, ref, key):
                return Choice(image, _remarks(entry, image))
    with suppress(ImageNotFound):
        image = store.resolve(layout, ref)
        # One without its signature is asked for again, rather than replaced by another one.
        return Choice(image, _remarks(entry, image)) if _may_be_taken(image, ref, key) else None
    if ref == reference.DEFAULT:
        with suppress(ImageNotFound):
            image = store.resolve(layout, reference.BUILT)
            return Choice(image, _remarks(entry, image))
    return None


def _may_be_taken(image: StoredImage, ref: str, key: Key | None) -> bool:
    if key is None or reference.parse(ref).registry is None:
        return True
    return keys.is_remembered(image.folder, key)


async def look_daily(layout: Layout, settings: Settings) -> None:
    """Find out whether the image's tag has moved, at most once a day; never fails."""
    try:
        ref = reference.parse(settings.image)
        entry = refs.read(layout, str(ref))
        if not settings.pull_check or entry is None or entry.manifest is None or ref.tag is None:
            return
        if entry.checked_at is not None:
            age = datetime.now(UTC) - datetime.fromisoformat(entry.checked_at)
            if timedelta(0) <= age < CHECK_EVERY:
                return
        key = convert.to_wire(keys.read_key(settings.pull_key))
        await child.run(layout, "check", ref=str(ref), key=key)
    except (SandboxError, ValueError, TypeError, OSError) as error:
        log.info("the registry was not asked whether %s has moved: %s", settings.image, error)


def _remarks(entry: refs.Entry | None, image: StoredImage) -> list[str]:
    if entry is None or entry.newer is None or entry.digest != image.digest:
        return []
    return [
        f"{entry.ref} means another image in its registry by now; "
        f"`sandbox image pull {entry.ref}` gets it."
    ]


def _remember(layout: Layout, name: str, wanted: str, image: StoredImage) -> None:
    if store.is_digest(wanted):
        return
    ref = str(reference.parse(wanted))
    entry = refs.read(layout, ref)
    names.remember_image(layout, name, Pin(ref, image.digest, entry.chosen if entry else None))


async def _build(layout: Layout, settings: Settings, report: Report) -> StoredImage:
    report(Progress("image", "Waiting for an image that is being built"))
    async with locks.held_async(layout.build_lock):
        # Several sandboxes may have found it missing; one builds for all.
        with suppress(ImageNotFound):
            return await anyio.to_thread.run_sync(store.resolve, layout, reference.BUILT)
        return await build.build(
            layout, reference.BUILT, report, source=settings.build_mirror, chosen=False
        )
