"""Paths in the workspace that QEMU, hence the guest, can only read."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox_rpc.qemu.view import View, mounts, protectable


def test_which_can_be_protected(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("x")
    (root / "plain").write_text("x")
    (root / "link").symlink_to("/etc/passwd")
    (root / "door").symlink_to("a")
    os.link(root / "plain", root / "twin")
    found, problems = protectable(
        str(root), ["a/b", "a/b/file", "absent", "link", "door/b/file", "twin", "./plain"]
    )
    assert found == ("a/b", "plain", "twin")
    assert [problem.split()[0] for problem in problems] == ["door/b/file", "link", "plain", "twin"]


def test_the_view_holds_them_and_the_way_there() -> None:
    view = View(vm="/v", workspace="/w", protected=("a/b/c", "d"), masks=("a/m",))
    options = mounts(view, (), own_pids=True, inner_map=False)
    start = options.index("/workspace") + 1
    assert options[start : options.index("--remount-ro", start)] == [
        "--bind", "/w/a", "/workspace/a", "--bind", "/w/a/b", "/workspace/a/b",
        "--ro-bind", "/w/a/b/c", "/workspace/a/b/c", "--ro-bind", "/w/d", "/workspace/d",
        "--tmpfs", "/workspace/a/m",
    ]  # fmt: skip
