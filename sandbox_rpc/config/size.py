"""Sizes as people write them (`2G`, `512M`, `1.5GiB`), in MiB."""

from __future__ import annotations

import re

_FACTOR = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}
# The lengths are bounded because the text may come from a file that the guest wrote.
_SIZE = re.compile(
    r"([0-9]{1,12})(?:\.([0-9]{1,6}))? ?(?:([mgt])(?:ib)?)?", re.IGNORECASE | re.ASCII
)


def parse(text: str) -> int:
    """MiB; a number without a unit is MiB, a fraction of a MiB is dropped.

    Raises:
        ValueError: not a size; `GB` and `MB` are not sizes, since they are decimal to some and
            binary to others.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3) or ""
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * _FACTOR[unit.lower()] // scale


def show(mib: int) -> str:
    """The shortest exact form that `parse` reads back: `2G`, `1536M`."""
    for unit in ("t", "g"):
        if mib and mib % _FACTOR[unit] == 0:
            return f"{mib // _FACTOR[unit]}{unit.upper()}"
    return f"{mib}M"
