"""The table, and the value made from it."""

from __future__ import annotations

import inspect
import re

import attrs

from sandbox_rpc.config import choices
from sandbox_rpc.config.setting import Folder, Kind
from sandbox_rpc.config.settings import BY_KEY, SETTINGS, TABLES
from sandbox_rpc.config.values import Settings
from sandbox_rpc.protocol import convert

TYPES = {
    Kind.SIZE: int,
    Kind.COUNT: int,
    Kind.SECONDS: float,
    Kind.BOOL: bool,
    Kind.TEXT: str,
    Kind.PATH: str,
    Kind.FILE: str,
}


def test_settings_has_one_field_for_each_row() -> None:
    fields = attrs.fields_dict(attrs.resolve_types(Settings))
    assert {name: (field.type, field.default) for name, field in fields.items()} == {
        row.attribute: (row.choices or TYPES[row.kind], row.default) for row in SETTINGS
    }


def test_keys_flags_and_attributes_are_unique() -> None:
    for names in (
        [row.key for row in SETTINGS],
        [flag for row in SETTINGS for flag in (row.flag, *dict(row.shortcuts))],
        [row.attribute for row in SETTINGS],
    ):
        assert len(set(names)) == len(names)


def test_shortcuts_are_values_of_their_setting() -> None:
    for row in SETTINGS:
        for flag, value in row.shortcuts:
            assert row.check(value, source=flag) == value


def test_no_key_is_also_a_table() -> None:
    """TOML cannot have both `image = …` and `[image]`."""
    assert not {row.path for row in SETTINGS} & TABLES


def test_keys_are_plain_toml() -> None:
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", row.key) for row in SETTINGS)


def test_what_a_folder_can_never_set() -> None:
    """Host paths, host commands, keys and QEMU arguments; a new path has to be here."""
    never = {row.key for row in SETTINGS if row.folder is Folder.NEVER}
    assert never == {
        "qemu.binary", "build.mirror", "proxy.upstream", "proxy.upstream_auth",
        "pull.key",
    }  # fmt: skip
    assert {row.key for row in SETTINGS if row.kind in (Kind.PATH, Kind.FILE)} <= never


def test_no_folder_may_freely_set_anything_yet() -> None:
    assert not [row.key for row in SETTINGS if row.folder is Folder.FREE]


def test_help_is_one_line_and_doc_is_prose() -> None:
    for row in SETTINGS:
        assert "\n" not in row.help, row.key
        assert not row.help.endswith("."), row.key
        assert row.doc.endswith("."), row.key


def test_every_choice_says_what_it_means() -> None:
    """Each member of a choice is followed by a docstring in the source."""
    source = inspect.getsource(choices)
    for row in SETTINGS:
        for choice in row.choices or ():
            assert re.search(rf'{choice.name} = "{choice.value}"\n    """', source), choice


def test_the_defaults() -> None:
    chosen = Settings()
    assert (chosen.memory_mib, chosen.cpus, chosen.disk_mib) == (2048, 2, 20480)
    assert (chosen.accelerator, chosen.image) == ("auto", BY_KEY["image"].default)
    assert (chosen.workspace_security, chosen.workspace_read_only) == ("none", False)
    assert (chosen.box_namespace, chosen.box_filter, chosen.box_seccomp) == ("auto",) * 3
    assert (chosen.ssh_autostart, chosen.ssh_agent_keys) == (True, True)
    assert (chosen.start_timeout_s, chosen.stop_timeout_s) == (0, 0)
    assert (chosen.qemu_binary, chosen.build_mirror) == ("", "")


def test_settings_by_key() -> None:
    chosen = Settings.of({"memory": 512, "workspace.read_only": True})
    assert chosen == Settings(memory_mib=512, workspace_read_only=True)


def test_settings_survive_the_state_file() -> None:
    chosen = Settings(
        memory_mib=512,
        accelerator=choices.Accelerator.TCG,
        start_timeout_s=1.5,
        box_filter=choices.Need.REQUIRE,
    )
    assert convert.from_wire(convert.to_wire(chosen), Settings) == chosen


def test_rows_are_found_by_key() -> None:
    assert all(BY_KEY[row.key] is row for row in SETTINGS)
