"""console.log: bounded, offsets true, never a way to other files."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox_rpc.console import hub, log


def test_trim_gives_room_back_and_keeps_offsets(tmp_path: Path) -> None:
    """The head becomes a hole; size and tail stay."""
    path = tmp_path / "console.log"
    path.write_bytes(b"a" * (1 << 20) + b"the end")
    before = path.stat()
    log.trim(path, keep=4096)
    after = path.stat()
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks
    assert path.read_bytes().endswith(b"the end")
    assert path.read_bytes()[:10] == bytes(10)


def test_short_logs_and_missing_ones_are_left_alone(tmp_path: Path) -> None:
    """Nothing to trim is no error."""
    path = tmp_path / "console.log"
    path.write_bytes(b"short")
    log.trim(path)
    assert path.read_bytes() == b"short"
    log.trim(tmp_path / "missing")


def test_links_are_not_followed(tmp_path: Path) -> None:
    """QEMU can write the folder: a link in the log's place must not reach the user's files."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * (1 << 20))
    link = tmp_path / "console.log"
    link.symlink_to(secret)
    blocks = os.stat(secret).st_blocks
    log.trim(link, keep=1)
    assert os.stat(secret).st_blocks == blocks
    assert hub.tail(link) == ""


def test_tail_is_fit_for_a_message(tmp_path: Path) -> None:
    """No escape sequences, no carriage returns."""
    path = tmp_path / "console.log"
    path.write_bytes(b"x" * 9000 + b"\r\n\x1b[31mKernel panic\x1b[0m \x1b]0;t\x07- not syncing\r\n")
    assert hub.tail(path, 100).endswith("Kernel panic - not syncing\n")
