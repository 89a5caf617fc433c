"""What the probe finds with the real programs, and what it says where they fail."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path

import pytest

from sandbox_rpc.protocol.convert import from_wire, to_wire
from sandbox_rpc.qemu import probe as probing
from sandbox_rpc.qemu.box import Probe
from sandbox_rpc.qemu.view import Mount
from tests.unit.network.nodes import Node

QEMU = os.path.realpath(shutil.which(f"qemu-system-{platform.machine()}") or "")


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def tools_in(monkeypatch: pytest.MonkeyPatch, folder: Path, *, without: str = "") -> None:
    """Let PATH hold the tools of the box but one."""
    folder.mkdir(exist_ok=True)
    for name in {"bwrap", "setpriv", "unshare", "ldd"} - {without}:
        if not (folder / name).exists():
            (folder / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(folder))


def test_this_host_has_every_layer_and_the_answer_survives_json() -> None:
    found = probing.probe(QEMU)
    assert (found.user.works, found.filter.works, found.seccomp.works) == (True, True, True)
    assert found.owner.works == (os.geteuid() == 0)
    assert from_wire(json.loads(json.dumps(to_wire(found))), Probe) == found


def test_root_of_a_namespace_without_other_users() -> None:
    """As in a rootless container: there is nobody whose folder root could open."""
    node = Node.first()
    try:
        found = node.call(probing.probe, QEMU)
    finally:
        node.stop()
    assert found.user.works
    assert (found.owner.works, found.owner.detail) == (
        False, "no other user exists in this user namespace",
    )  # fmt: skip


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools_in(monkeypatch, tmp_path / "bin", without="bwrap")
    found = probing.probe(QEMU)
    assert not found.user.works
    assert not found.owner.works
    assert "not installed" in found.user.detail
    assert found.filter.works


def test_a_qemu_without_seccomp(tmp_path: Path) -> None:
    fake = program(
        tmp_path / "qemu", '[ "$1" = -sandbox ] && echo "-sandbox: invalid option" >&2 && exit 1'
    )
    found = probing.probe(str(fake))
    assert not found.seccomp.works
    assert "invalid option" in found.seccomp.detail


@pytest.mark.parametrize(
    ("refused", "own_pids", "sealed"),
    [("--proc", False, True), ("--disable-userns", True, False)],
)
def test_less_is_tried_where_the_kernel_or_bubblewrap_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: str, own_pids: bool, sealed: bool
) -> None:
    folder = tmp_path / "bin"
    real = shutil.which("bwrap")
    program(
        folder / "bwrap",
        f'for a in "$@"; do [ "$a" = {refused} ] && echo "no {refused}" >&2 && exit 1; done\n'
        f'exec {real} "$@"',
    )
    tools_in(monkeypatch, folder)
    found = probing.probe(QEMU)
    assert found.user.works
    assert (found.own_pids, found.sealed) == (own_pids, sealed)
    assert found.owner.works == (os.geteuid() == 0)


def test_the_reason_is_the_one_of_the_full_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "bin"
    program(folder / "bwrap", 'echo "bwrap: setting up uid map: Permission denied" >&2; exit 1')
    tools_in(monkeypatch, folder)
    found = probing.probe(QEMU)
    assert not found.user.works
    assert "setting up uid map: Permission denied" in found.user.detail


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("0", "1", "0"), "max_user_namespaces"),
        (("9", "0", "0"), "unprivileged_userns_clone"),
        (("9", "", "1"), "AppArmor"),
        (("9", "", ""), "Permission denied"),
    ],
)
def test_the_kernel_setting_behind_a_refusal_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, values: tuple[str, str, str], said: str
) -> None:
    files = [tmp_path / str(index) for index in range(3)]
    for file, value in zip(files, values, strict=True):
        file.write_text(value + "\n")
    monkeypatch.setattr(probing, "SWITCHES", tuple(map(str, files)))
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert said in probing._explain("bwrap: setting up uid map: Permission denied")


def test_fingerprint_changes_with_what_the_answer_rests_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = program(tmp_path / "qemu", "true")
    before = probing.fingerprint(str(fake))
    assert probing.fingerprint(str(fake)) == before
    program(fake, "true, another build")
    changed = probing.fingerprint(str(fake))
    assert changed != before
    switch = tmp_path / "switch"
    switch.write_text("0\n")
    monkeypatch.setattr(probing, "SWITCHES", (str(switch),))
    closed = probing.fingerprint(str(fake))
    switch.write_text("1\n")
    assert probing.fingerprint(str(fake)) not in (closed, changed)


def test_the_system_needs_no_single_files() -> None:
    mounts = probing.needs([QEMU])
    assert mounts[0] == Mount("ro-bind", "/usr", "/usr")
    assert {mount.target for mount in mounts} <= {
        "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"
    }  # fmt: skip


def test_a_program_of_ones_own_brings_libraries_and_data_but_not_its_prefix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    binary = program(prefix / "bin" / "qemu", "true")
    library = prefix / "lib" / "libq.so.1.2"
    library.parent.mkdir()
    library.touch()
    (prefix / "lib" / "libq.so.1").symlink_to("libq.so.1.2")
    (prefix / "share" / "qemu").mkdir(parents=True)
    (prefix / "secret").touch()
    program(
        tmp_path / "bin" / "ldd",
        f"echo '\tlibc.so.6 => /lib/libc.so.6 (0x00007f0000000000)'\n"
        f"echo '\tlibq.so.1 => {prefix}/lib/libq.so.1 (0x00007f0000000000)'\n"
        "echo '\tlinux-vdso.so.1 (0x00007ffc00000000)'",
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    own = [m for m in probing.needs([str(binary)]) if m.target.startswith(str(tmp_path))]
    assert own == [
        Mount("ro-bind", str(binary), str(binary)),
        Mount("ro-bind", str(library), str(library)),
        Mount("ro-bind", str(library), str(prefix / "lib" / "libq.so.1")),
        Mount("ro-bind", str(prefix / "share" / "qemu"), str(prefix / "share" / "qemu")),
    ]


def test_a_probe_leaves_no_process_and_no_folder_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    probing.probe(QEMU)
    assert list(tmp_path.iterdir()) == []
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert "bwrap" not in [Path(f"/proc/{pid}/comm").read_text().strip() for pid in children]
