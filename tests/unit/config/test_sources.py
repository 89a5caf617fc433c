"""Default < config.toml < sandbox.toml < flags."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_rpc.config import sources, trust
from sandbox_rpc.config.folder import FolderState
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.config.sources import Origin
from sandbox_rpc.config.values import Settings
from sandbox_rpc.protocol.errors import SettingInvalid


def test_nobody_says_anything(workspace: Path) -> None:
    loaded = sources.load(str(workspace), {})
    assert loaded.settings == Settings()
    assert (loaded.warnings, loaded.folder) == ([], FolderState.ABSENT)
    assert loaded.origins == {row.key: Origin.DEFAULT for row in SETTINGS}


def test_the_later_source_wins(workspace: Path, config_file: Path) -> None:
    config_file.write_text("memory = '8G'\ncpus = 8\ndisk = '40G'\n")
    (workspace / "sandbox.toml").write_text("cpus = 4\ndisk = '30G'\n")
    loaded = sources.load(str(workspace), {"disk": "100G"})
    chosen = loaded.settings
    assert (chosen.memory_mib, chosen.cpus, chosen.disk_mib) == (8192, 4, 102400)
    assert [loaded.origins[key] for key in ("memory", "cpus", "disk", "image")] == [
        Origin.USER,
        Origin.FOLDER,
        Origin.OVERRIDE,
        Origin.DEFAULT,
    ]
    assert (loaded.warnings, loaded.folder) == ([], FolderState.TIGHTENED)


def test_the_users_settings_in_a_client_are_the_users(workspace: Path, config_file: Path) -> None:
    """Over config.toml, and a bound to the folder, which may tighten them and do no more."""
    config_file.write_text("memory = '8G'\nnetwork = 'offline'\ncpus = 8\n")
    (workspace / "sandbox.toml").write_text("memory = '2G'\nnetwork = 'proxy'\ncpus = 6\n")
    user = {"memory": 4096, "network": "open", "cpus": 4}
    loaded = sources.load(str(workspace), {}, user=user)
    chosen = loaded.settings
    assert (chosen.memory_mib, chosen.network, chosen.cpus) == (2048, "proxy", 4)
    assert [loaded.origins[key] for key in ("memory", "network", "cpus")] == [
        Origin.FOLDER,
        Origin.FOLDER,
        Origin.USER,
    ]
    assert loaded.folder is FolderState.UNTRUSTED
    asked = sources.load(str(workspace), {"network": "open"}, user=user)
    assert asked.settings.network == "open"


@pytest.mark.parametrize("user", [{"memroy": 1}, {"cpus": "2"}, {"cpus": 0}])
def test_the_users_settings_in_a_client_are_checked(user: dict[str, object]) -> None:
    with pytest.raises(SettingInvalid) as caught:
        sources.load(None, {}, user=user)
    assert caught.value.details["source"] == "the client's settings"


def test_a_flag_may_widen_what_the_folder_tightened(workspace: Path) -> None:
    (workspace / "sandbox.toml").write_text("[box]\nfilter = 'require'\n")
    assert sources.load(str(workspace), {"box.filter": "off"}).settings.box_filter == "off"


def test_a_flag_does_not_loosen_the_bound_of_the_folder(workspace: Path) -> None:
    """The folder is held to default and user; a flag for one start is not its licence."""
    (workspace / "sandbox.toml").write_text("memory = '4G'\n")
    loaded = sources.load(str(workspace), {"memory": "8G"})
    assert loaded.settings.memory_mib == 8192
    assert loaded.folder is FolderState.UNTRUSTED


def test_trust_widens_until_the_file_changes(workspace: Path, config_file: Path) -> None:
    config_file.write_text("memory = '1G'\n")
    file = workspace / "sandbox.toml"
    file.write_text("memory = '8G'\n[qemu]\nbinary = '/w/q'\n")

    loaded = sources.load(str(workspace), {})
    assert (loaded.settings.memory_mib, loaded.folder) == (1024, FolderState.UNTRUSTED)
    assert len(loaded.warnings) == 2

    trust.trust(str(workspace))
    loaded = sources.load(str(workspace), {})
    assert (loaded.settings.memory_mib, loaded.folder) == (8192, FolderState.TRUSTED)
    assert loaded.settings.qemu_binary == ""
    assert len(loaded.warnings) == 1

    file.write_text("memory = '9G'\n")
    loaded = sources.load(str(workspace), {})
    assert (loaded.settings.memory_mib, loaded.folder) == (1024, FolderState.UNTRUSTED)
    assert loaded.warnings[-1] == f"{file} has changed since `sandbox trust`, so it is not trusted."


def test_without_a_workspace_there_is_no_folder(config_file: Path) -> None:
    config_file.write_text("cpus = 7\n")
    loaded = sources.load(None, {})
    assert (loaded.settings.cpus, loaded.folder) == (7, FolderState.ABSENT)


def test_the_user_can_set_everything(config_file: Path) -> None:
    config_file.write_text(
        "accelerator = 'tcg'\nimage = 'mine'\n[box]\nfilter = 'off'\n"
        "[qemu]\nbinary = '/opt/qemu'\n[build]\nmirror = 'http://mirror.example/debian'\n"
    )
    chosen = sources.load(None, {}).settings
    assert (chosen.accelerator, chosen.image, chosen.box_filter) == ("tcg", "mine", "off")
    assert (chosen.qemu_binary, chosen.build_mirror) == (
        "/opt/qemu",
        "http://mirror.example/debian",
    )


def test_a_typing_error_of_the_user_is_an_error(config_file: Path) -> None:
    config_file.write_text("[box]\nfiltre = 'require'\n")
    with pytest.raises(SettingInvalid) as caught:
        sources.load(None, {})
    assert caught.value.message == f"There is no setting box.filtre ({config_file}, line 2)."
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Did you mean box.filter?")
    assert caught.value.details == {
        "setting": "box.filtre",
        "source": "config.toml",
        "file": str(config_file),
        "line": 2,
    }


def test_a_wrong_value_of_the_user_is_an_error(config_file: Path) -> None:
    config_file.write_text("cpus = 1\nmemory = true\n")
    with pytest.raises(SettingInvalid) as caught:
        sources.load(None, {})
    assert caught.value.message == f"memory cannot be true in {config_file}, line 2: not a size."


def test_the_users_file_may_be_a_link(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfile").write_text("cpus = 3\n")
    config_file.symlink_to(tmp_path / "dotfile")
    assert sources.load(None, {}).settings.cpus == 3


def test_the_users_file_must_be_a_file(config_file: Path) -> None:
    config_file.mkdir()
    with pytest.raises(SettingInvalid, match="it is a folder"):
        sources.load(None, {})


@pytest.mark.parametrize(
    "content",
    [b"cpus = 0\n", b"cpus\n", b"\0", b"\xff", b"cpus = " + b"[" * 60_000, b"#" * 70_000],
    ids=lambda value: ascii(value)[:20],
)
def test_a_folder_file_that_cannot_be_used_stops_the_start(workspace: Path, content: bytes) -> None:
    (workspace / "sandbox.toml").write_bytes(content)
    with pytest.raises(SettingInvalid) as caught:
        sources.load(str(workspace), {})
    assert caught.value.details["file"] == str(workspace / "sandbox.toml")
    assert caught.value.details["source"] == "sandbox.toml"


def test_a_pipe_in_the_folder_stops_the_start(workspace: Path) -> None:
    os.mkfifo(workspace / "sandbox.toml")
    with pytest.raises(SettingInvalid, match="not a regular file"):
        sources.load(str(workspace), {})


def test_an_unknown_key_of_the_folder_is_a_warning(workspace: Path) -> None:
    (workspace / "sandbox.toml").write_text("presist = []\n")
    loaded = sources.load(str(workspace), {})
    assert len(loaded.warnings) == 1
    assert "presist (line 1, did you mean persist?)" in loaded.warnings[0]
    assert loaded.folder is FolderState.TIGHTENED


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"memroy": 1}, 'There is no setting "memroy" (the request).'),
        ({"cpus": "2"}, 'cpus cannot be "2" (the request): not a whole number.'),
        ({"memory": float("nan")}, "memory cannot be nan (the request): not a size."),
    ],
)
def test_overrides_are_checked(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        sources.load(None, overrides, source="the request")
    assert caught.value.message == message
    assert caught.value.details["source"] == "the request"
