"""The folder's file: what may lie there, and what it may say."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sandbox_rpc.config import document, folder
from sandbox_rpc.config.document import Document, Entry
from sandbox_rpc.config.folder import FolderState, Verdict
from sandbox_rpc.config.setting import Folder, Kind, Setting, Value
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.protocol.errors import SettingInvalid

DEFAULTS: dict[str, Value] = {row.key: row.default for row in SETTINGS}


def test_a_folder_without_the_file(workspace: Path) -> None:
    assert folder.read(str(workspace)) is None
    assert folder.read(str(workspace / "missing")) is None


def test_a_plain_file_is_read_up_to_its_limit(workspace: Path) -> None:
    file = workspace / "sandbox.toml"
    for content in (b"", b"cpus = 1\n", b"#" * folder.MAX_BYTES):
        file.write_bytes(content)
        assert folder.read(str(workspace)) == content


@pytest.mark.parametrize("size", [folder.MAX_BYTES + 1, 1 << 20, 1 << 40])
def test_a_large_file_is_refused_unread(workspace: Path, size: int) -> None:
    with (workspace / "sandbox.toml").open("wb") as file:
        file.truncate(size)
    with pytest.raises(SettingInvalid, match="larger than 64 KiB"):
        folder.read(str(workspace))


def test_nothing_but_a_regular_file_is_opened(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO would hang, a link leads to the host's files, a device may act when opened."""
    file = workspace / "sandbox.toml"
    secret = tmp_path / "secret"
    secret.write_text("cpus = 1\n")
    monkeypatch.chdir(workspace)

    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("sandbox.toml")

    tricks: list[Callable[[], None]] = [
        partial(file.symlink_to, secret),
        partial(file.symlink_to, "missing"),
        partial(file.symlink_to, "sandbox.toml"),
        partial(file.symlink_to, "/dev/zero"),
        partial(os.mkfifo, file),
        listen,
    ]
    for play in tricks:
        play()
        with pytest.raises(SettingInvalid, match="not a regular file") as caught:
            folder.read(str(workspace))
        assert caught.value.details == {"source": "sandbox.toml", "file": str(file)}
        file.unlink()
    file.mkdir()
    with pytest.raises(SettingInvalid, match="not a regular file"):
        folder.read(str(workspace))


def test_no_descriptor_is_left_open(workspace: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (workspace / "sandbox.toml").write_text("cpus = 1\n")
    folder.read(str(workspace))
    (workspace / "sandbox.toml").unlink()
    os.mkfifo(workspace / "sandbox.toml")
    with pytest.raises(SettingInvalid):
        folder.read(str(workspace))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def judged(text: str, trusted: bool = False, **base: Value) -> Verdict:
    parsed = document.parse(text.encode(), file="/w/sandbox.toml", source="sandbox.toml")
    now = {**DEFAULTS, **{key.replace("__", "."): value for key, value in base.items()}}
    return folder.judge(parsed, now, trusted=trusted, file="/w/sandbox.toml")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("memory = 512", {"memory": 512}),
        ("memory = '2G'", {"memory": 2048}),
        ("cpus = 2", {"cpus": 2}),
        ("disk = '4G'", {"disk": 4096}),
        ("accelerator = 'auto'", {"accelerator": "auto"}),
        (f"image = '{DEFAULTS['image']}'", {"image": DEFAULTS["image"]}),
        ("start.timeout = 0", {"start.timeout": 0.0}),
        ("workspace.security = 'mapped-xattr'", {"workspace.security": "mapped-xattr"}),
        ("workspace.read_only = true", {"workspace.read_only": True}),
        ("box.seccomp = 'require'", {"box.seccomp": "require"}),
        ("ssh.autostart = false", {"ssh.autostart": False}),
        ("ssh.agent_keys = false", {"ssh.agent_keys": False}),
    ],
)
def test_tighter_and_equal_values_hold_in_silence(text: str, values: dict[str, Value]) -> None:
    verdict = judged(text)
    assert (verdict.values, verdict.warnings) == (values, [])
    assert verdict.state is FolderState.TIGHTENED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory = 4096", "memory = 4096"),
        ("memory = '4G'", 'memory = "4G"'),
        ("cpus = 3", "cpus = 3"),
        ("disk = '1T'", 'disk = "1T"'),
        ("accelerator = 'kvm'", 'accelerator = "kvm"'),
        ("accelerator = 'tcg'", 'accelerator = "tcg"'),
        ("image = 'evil'", 'image = "evil"'),
        ("persist = 'a'", 'persist = "a"'),
        ("box.filter = 'off'", 'box.filter = "off"'),
        ("start.timeout = 1", "start.timeout = 1"),
        ("stop.timeout = 86400", "stop.timeout = 86400"),
    ],
)
def test_wider_values_need_trust(text: str, said: str) -> None:
    verdict = judged(text)
    assert verdict.values == {}
    assert verdict.state is FolderState.UNTRUSTED
    (warning,) = verdict.warnings
    assert warning.startswith(f"/w/sandbox.toml, line 1: {said} is ignored")
    assert "`sandbox trust`" in warning

    verdict = judged(text, trusted=True)
    assert len(verdict.values) == 1
    assert (verdict.warnings, verdict.state) == ([], FolderState.TRUSTED)


def test_tighter_is_relative_to_what_the_user_has_set() -> None:
    assert judged("memory = 4096", memory=8192).values == {"memory": 4096}
    assert judged("memory = 512", memory=256).values == {}
    assert judged("box.filter = 'auto'", box__filter="off").values == {"box.filter": "auto"}
    assert judged("box.filter = 'auto'", box__filter="require").values == {}
    assert judged("ssh.autostart = true", ssh__autostart=False).values == {}
    assert judged("image = 'mine'", image="mine").values == {"image": "mine"}
    assert judged("workspace.read_only = false", workspace__read_only=True).values == {}


def test_the_tight_part_of_an_untrusted_file_holds() -> None:
    verdict = judged("memory = 512\ncpus = 64\n")
    assert verdict.values == {"memory": 512}
    assert len(verdict.warnings) == 1
    assert "line 2: cpus = 64" in verdict.warnings[0]
    assert "now cpus = 2" in verdict.warnings[0]


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "qemu.binary = '/w/evil'",
        "qemu.binary = ''",
        "qemu.binary = 7",
        "[qemu]\nbinary = ['a']",
        "build.mirror = 'http://mirror.example'",
    ],
)
def test_some_settings_are_never_the_folders(text: str, trusted: bool) -> None:
    verdict = judged(text, trusted=trusted)
    assert verdict.values == {}
    (warning,) = verdict.warnings
    assert "trusted or not" in warning
    assert warning.isprintable()
    assert verdict.state is (FolderState.TRUSTED if trusted else FolderState.TIGHTENED)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_value_that_can_never_be_is_an_error(trusted: bool) -> None:
    with pytest.raises(SettingInvalid, match=r"cpus cannot be 0 in /w/sandbox\.toml, line 2"):
        judged("\ncpus = 0", trusted=trusted)


def test_unknown_keys_are_one_warning_however_many() -> None:
    """A guest can write thousands, and its own words may be commands to the terminal."""
    verdict = judged(
        "memroy = 1\n'\\u001b[31m' = 1\n" + "".join(f"k{n} = 1\n" for n in range(4000))
    )
    (warning,) = verdict.warnings
    assert "memroy (line 1, did you mean memory?)" in warning
    assert "and 3997 more" in warning
    assert len(warning) < 400
    assert warning.isprintable()
    assert verdict.state is FolderState.TIGHTENED


def test_a_free_setting_is_the_folders() -> None:
    row = Setting(
        key="memory",
        kind=Kind.COUNT,
        default=1,
        maximum=9,
        folder=Folder.FREE,
        flag="--a",
        help="a",
        doc="A.",
    )
    parsed = Document([Entry(row, 9, 1)], [])
    assert folder.judge(parsed, {"memory": 1}, trusted=False, file="f").values == {"memory": 9}
