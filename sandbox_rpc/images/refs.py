"""Names of images: one small file each, `refs/<reference>.json`, replaced whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference
from sandbox_rpc.protocol.errors import ImageInvalid, ImageNotFound

SUFFIX = ".json"


@frozen
class Entry:
    """What a name means at the moment."""

    ref: str
    digest: str
    """Of the image in the store."""
    manifest: str | None = None
    """Of what the registry had under this name when it was pulled from or pushed there."""
    chosen: str | None = None
    """The digest that somebody asked for by `image pull`, `build` or `import`; None: a start needed
    one. Folders that began with another image move on when it changes."""
    newer: str | None = None
    """What the registry has under this name now, where that was seen to be something else."""
    checked_at: str | None = None
    """ISO 8601 time of the last look."""


def normalize(text: str) -> str:
    """The reference as it is kept.

    Raises:
        ImageNotFound: no image can have this name.
    """
    return str(reference.parse(text))


def read(layout: Layout, ref: str) -> Entry | None:
    """The entry of a name; None where there is none.

    Raises:
        ImageInvalid: it is damaged.
        ImageNotFound: no image can have this name.
    """
    path = path_of(layout, normalize(ref))
    try:
        data = json.loads(path.read_bytes())
        fields = {name: data.get(key) for name, key in _KEYS.items()}
        if all(value is None or isinstance(value, str) for value in fields.values()):
            entry = Entry(ref=normalize(ref), **fields)
            if entry.digest and reference.DIGEST.fullmatch(entry.digest):
                return entry
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, AttributeError):
        pass
    raise ImageInvalid(f"The reference {ref} is damaged: {path}.", ref=ref)


def write(layout: Layout, entry: Entry) -> None:
    """Let a name mean this from now on; the caller holds the cache's lock."""
    path = path_of(layout, normalize(entry.ref))
    with files.translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {key: value for name, key in _KEYS.items() if (value := getattr(entry, name))}
    files.replace(path, json.dumps({"ref": entry.ref, **data}) + "\n")


def names(layout: Layout) -> list[str]:
    """All names there are, sorted; damaged ones too."""
    if not layout.refs.is_dir():
        return []
    paths = (path.relative_to(layout.refs).as_posix() for path in layout.refs.rglob(f"*{SUFFIX}"))
    return sorted(filter(_is_name, (path.removesuffix(SUFFIX) for path in paths)))


def every(layout: Layout) -> Iterator[Entry]:
    """All entries by name; damaged ones are left out."""
    for name in names(layout):
        try:
            entry = read(layout, name)
        except ImageInvalid:
            continue
        if entry is not None:
            yield entry


def path_of(layout: Layout, ref: str) -> Path:
    """The file of a normalized name."""
    return layout.refs / f"{ref}{SUFFIX}"


def _is_name(text: str) -> bool:
    try:
        return normalize(text) == text
    except ImageNotFound:
        return False


_KEYS = {
    "digest": "digest",
    "manifest": "manifest",
    "chosen": "chosen",
    "newer": "newer",
    "checked_at": "checkedAt",
}
