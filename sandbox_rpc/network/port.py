"""Which numbers are ports."""

from __future__ import annotations

from sandbox_rpc.protocol.errors import SettingInvalid

HIGHEST = 65535


def check(number: int, name: str, *, least: int = 1) -> None:
    """See that a number is a port; `least` is 0 where that stands for a choice of ours.

    Raises:
        SettingInvalid: it is none; its `setting` is `name`.
    """
    if not least <= number <= HIGHEST:
        raise SettingInvalid(
            f"{number} is no port.", hint=f"Ports are numbers from 1 to {HIGHEST}.", setting=name
        )
