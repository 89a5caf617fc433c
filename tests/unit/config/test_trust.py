"""What the user has accepted: by path and by content, outside the folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sandbox_rpc.config import trust
from sandbox_rpc.config.trust import Trust
from sandbox_rpc.host import paths
from sandbox_rpc.protocol.errors import SettingInvalid, SettingUntrusted


def write(workspace: Path, text: str) -> bytes:
    (workspace / "sandbox.toml").write_text(text)
    return text.encode()


def test_trust_is_for_one_content(workspace: Path) -> None:
    first = write(workspace, "memory = '4G'\n")
    assert trust.trust_in(str(workspace), first) is Trust.NONE
    trust.trust(str(workspace))
    assert trust.trust_in(str(workspace), first) is Trust.GIVEN
    assert trust.is_trusted(str(workspace), first)
    assert trust.trust_in(str(workspace), first + b"#") is Trust.CHANGED
    assert not trust.is_trusted(str(workspace), first + b"#")
    assert not trust.is_trusted(str(workspace), b"")

    second = write(workspace, "memory = '8G'\n")
    trust.trust(str(workspace))
    assert trust.is_trusted(str(workspace), second)
    assert not trust.is_trusted(str(workspace), first)


def test_trust_is_for_one_folder(workspace: Path, tmp_path: Path) -> None:
    content = write(workspace, "cpus = 4\n")
    trust.trust(str(workspace))
    other = tmp_path / "other"
    other.mkdir()
    assert not trust.is_trusted(str(other), content)
    paths.trust_file(str(other)).write_bytes(paths.trust_file(str(workspace)).read_bytes())
    assert not trust.is_trusted(str(other), content)


def test_a_folder_is_its_real_path(workspace: Path, tmp_path: Path) -> None:
    content = write(workspace, "cpus = 4\n")
    link = tmp_path / "link"
    link.symlink_to(workspace)
    trust.trust(str(link))
    assert trust.is_trusted(str(workspace), content)
    assert trust.distrust(str(link))
    assert not trust.is_trusted(str(workspace), content)


def test_what_is_accepted_is_told(workspace: Path) -> None:
    text = "memory = '4G'\nzebra = 1\n[qemu]\nbinary = '/w/q'\n[box]\nfilter = 'off'\n"
    write(workspace, text)
    reviewed = trust.review(str(workspace))
    assert reviewed.values == {"memory": 4096, "box.filter": "off"}
    assert reviewed.refused == ["qemu.binary"]
    assert reviewed.unknown == ["zebra"]
    assert not trust.is_trusted(str(workspace), text.encode())
    assert trust.trust(str(workspace)) == reviewed


def test_only_what_was_reviewed_is_accepted(workspace: Path) -> None:
    """The guest may change the file while the user reads it."""
    write(workspace, "memory = '4G'\n")
    reviewed = trust.review(str(workspace))
    swapped = write(workspace, "image = 'evil'\n")
    with pytest.raises(SettingUntrusted):
        trust.trust(str(workspace), sha256=reviewed.sha256)
    assert not trust.is_trusted(str(workspace), swapped)
    write(workspace, "memory = '4G'\n")
    assert trust.trust(str(workspace), sha256=reviewed.sha256) == reviewed


@pytest.mark.parametrize("text", [None, "cpus = 0\n", "cpus = \n"])
def test_a_file_that_cannot_be_used_is_not_accepted(workspace: Path, text: str | None) -> None:
    if text is not None:
        write(workspace, text)
    with pytest.raises(SettingInvalid):
        trust.trust(str(workspace))
    assert not paths.trust_file(str(workspace)).exists()


def test_the_record_is_private_and_replaced_whole(workspace: Path) -> None:
    write(workspace, "cpus = 4\n")
    record = paths.trust_file(str(workspace))
    before = os.umask(0)
    try:
        trust.trust(str(workspace))
    finally:
        os.umask(before)
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    inode = record.stat().st_ino
    with record.open() as reader:
        write(workspace, "cpus = 5\n")
        trust.trust(str(workspace))
        assert record.stat().st_ino != inode
        assert json.load(reader)["workspace"] == str(workspace)
    assert [file.name for file in record.parent.iterdir()] == [record.name]


def test_distrust_forgets(workspace: Path) -> None:
    content = write(workspace, "cpus = 4\n")
    assert not trust.distrust(str(workspace))
    trust.trust(str(workspace))
    assert trust.distrust(str(workspace))
    assert trust.trust_in(str(workspace), content) is Trust.NONE


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", "nonsense", '{"schema": 2}', '{"schema": 1, "sha256": null}', "\0"]
)
def test_a_broken_record_is_no_trust(workspace: Path, record: str) -> None:
    content = write(workspace, "cpus = 4\n")
    trust.trust(str(workspace))
    paths.trust_file(str(workspace)).write_text(record)
    assert trust.trust_in(str(workspace), content) is Trust.NONE


def test_a_folder_that_holds_the_records_is_never_trusted(
    workspace: Path, tmp_path: Path, config_file: Path
) -> None:
    """Its guest could write them."""
    content = write(tmp_path, "cpus = 4\n")
    with pytest.raises(SettingUntrusted, match="trust itself"):
        trust.trust(str(tmp_path))
    write(workspace, "cpus = 4\n")
    trust.trust(str(workspace))
    forged = json.loads(paths.trust_file(str(workspace)).read_text())
    forged["workspace"] = str(tmp_path)
    paths.trust_file(str(tmp_path)).write_text(json.dumps(forged))
    assert not trust.is_trusted(str(tmp_path), content)
