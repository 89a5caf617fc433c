"""The table of settings as command-line flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox_rpc.config import size
from sandbox_rpc.config.setting import Kind, Setting, Value
from sandbox_rpc.config.settings import SETTINGS

if TYPE_CHECKING:
    import argparse

_PREFIX = "setting:"
"""Keeps a flag's place in the namespace apart from arguments of the same name, such as `image`."""


class _Offered(tuple[str, ...]):
    """Choices for completion and help only: argparse lets all pass, `Setting.check` judges.

    So a wrong choice has the same words and the same exit status as any other wrong setting.
    """

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


def add_flags(parser: argparse.ArgumentParser, command: str = "start") -> None:
    """Add the flags of the settings that concern `command`, in a group of their own."""
    import argparse

    group = parser.add_argument_group("settings")
    for setting in SETTINGS:
        if command not in setting.commands:
            continue
        # SUPPRESS: what is not on the command line must not shadow the files.
        shared: dict[str, Any] = {"dest": _PREFIX + setting.key, "default": argparse.SUPPRESS}
        help_text = f"{setting.help}{_default(setting)}".replace("%", "%%")
        if setting.kind is Kind.BOOL:
            group.add_argument(
                setting.flag, action=argparse.BooleanOptionalAction, help=help_text, **shared
            )
        elif setting.choices is not None:
            offered = _Offered(setting.choices)
            metavar = "{" + ",".join(offered) + "}"
            group.add_argument(
                setting.flag, choices=offered, metavar=metavar, help=help_text, **shared
            )
        elif setting.is_list:
            group.add_argument(
                setting.flag, action="append", metavar=setting.metavar, help=help_text, **shared
            )
        else:
            group.add_argument(setting.flag, metavar=setting.metavar, help=help_text, **shared)
        for flag, value in setting.shortcuts:
            short = f"short for {setting.flag} {value}"
            group.add_argument(flag, action="store_const", const=value, help=short, **shared)


def from_namespace(namespace: argparse.Namespace) -> dict[str, Value]:
    """The settings that were given as flags, by key: the `overrides` of `sources.load`.

    Raises:
        SettingInvalid: a wrong value; `source` is the flag.
    """
    values: dict[str, Value] = {}
    given = vars(namespace)
    for setting in SETTINGS:
        if (name := _PREFIX + setting.key) in given:
            said = ",".join(given[name]) if setting.is_list else given[name]
            value = setting.from_text(said) if isinstance(said, str) else said
            values[setting.key] = setting.check(value, source=setting.flag)
    return values


def _default(setting: Setting) -> str:
    match setting.kind, setting.default:
        case Kind.SIZE, int(mib):
            return f" (default: {size.show(mib)})"
        case Kind.BOOL, on:
            return f" (default: {'yes' if on else 'no'})"
        case Kind.SECONDS, _:
            return ""
        case _, "":
            return ""
    return f" (default: {setting.default})"
