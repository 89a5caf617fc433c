"""Small files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.host import files
from sandbox_rpc.protocol.errors import DiskFull, PermissionDenied


def test_replaced_with_its_mode(tmp_path: Path) -> None:
    """New content, mode 0600 whatever it was, nothing beside it."""
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o644)
    files.replace(path, "new \udcff")
    assert path.read_bytes() == b"new \xff"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """On a real file system without room: an error for people, the old content, no scraps."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from sandbox_rpc.host import files\n"
        "from sandbox_rpc.protocol.errors import DiskFull\n"
        "path = Path(sys.argv[1], 'a'); files.replace(path, 'old')\n"
        "try:\n"
        "    files.replace(path, b'x' * (1 << 20))\n"
        "except DiskFull as error:\n"
        "    print(error.message, error.details, path.read_text(), os.listdir(sys.argv[1]))\n"
    )
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3" "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, program]
    if os.geteuid() != 0:
        argv[1:1] = ["--user", "--map-root-user"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    path = f"{tmp_path}/a"
    assert done.stdout == f"No space left to write {path}. {{'path': '{path}'}} old ['a']\n"


def test_write_that_is_cut_short_leaves_the_old_file(tmp_path: Path) -> None:
    """Any other failure in the middle of writing passes through, and leaves no scraps either."""
    path = tmp_path / "a"
    files.replace(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.replace(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied), (errno.EROFS, PermissionDenied), (errno.EIO, OSError),
    ],
)  # fmt: skip
def test_what_the_system_says(number: int, kind: type[Exception]) -> None:
    """Errors a person can act on become ours, others stay."""
    with pytest.raises(kind), files.translated(Path("/somewhere/file")):
        raise OSError(number, os.strerror(number))
