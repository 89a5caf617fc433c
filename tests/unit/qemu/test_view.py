"""The file view as a list of bubblewrap's options."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from sandbox_rpc.protocol.errors import WorkspaceRefused
from sandbox_rpc.qemu import view as views
from sandbox_rpc.qemu.view import Mount, View, descriptors, inherited, inside, masked, mounts

SYSTEM = (Mount("ro-bind", "/usr", "/usr"), Mount("symlink", "usr/lib", "/lib"))


def test_options_in_full() -> None:
    view = View(
        vm="/cache/vm/qemu",
        workspace="/home/me/a,b\nc",
        files=(Mount("ro-bind", "/cache/i/disk.qcow2", "/image/disk.qcow2"),),
        kvm=True,
    )
    assert mounts(view, SYSTEM, own_pids=True, inner_map=False) == [
        "--dir", "/etc",
        "--dir", "/image",
        "--ro-bind", "/usr", "/usr",
        "--symlink", "usr/lib", "/lib",
        "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache",
        "--ro-bind-try", "/etc/alternatives", "/etc/alternatives",
        "--ro-bind-try", "/etc/qemu", "/etc/qemu",
        "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf",
        "--ro-bind-try", "/etc/hosts", "/etc/hosts",
        "--ro-bind-try", "/etc/nsswitch.conf", "/etc/nsswitch.conf",
        "--ro-bind-try", "/etc/host.conf", "/etc/host.conf",
        "--ro-bind", "/cache/i/disk.qcow2", "/image/disk.qcow2",
        "--proc", "/proc",
        "--dev", "/dev",
        "--dev-bind", "/dev/kvm", "/dev/kvm",
        "--perms", "1777", "--tmpfs", "/tmp",
        "--bind", "/cache/vm/qemu", "/vm",
        "--bind", "/home/me/a,b\nc", "/workspace",
        "--remount-ro", "/",
        "--chdir", "/vm",
    ]  # fmt: skip


def test_no_device_and_no_resolver_where_they_are_not_needed() -> None:
    options = mounts(
        View(vm="/v", workspace="/w", network_namespace=True),
        SYSTEM,
        own_pids=True,
        inner_map=False,
    )
    assert "/dev/kvm" not in options
    assert "/etc/resolv.conf" not in options


@pytest.mark.parametrize(("inner_map", "option"), [(False, "--ro-bind"), (True, "--bind")])
def test_the_hosts_proc_where_no_new_one_can_be_mounted(inner_map: bool, option: str) -> None:
    options = mounts(View(vm="/v", workspace="/w"), SYSTEM, own_pids=False, inner_map=inner_map)
    assert "--proc" not in options
    assert options[options.index("/proc") - 1] == option


def test_parents_of_a_program_of_ones_own_are_made_but_not_inside_what_is_mounted() -> None:
    system = (*SYSTEM, Mount("ro-bind", "/opt/q/lib/libq.so", "/opt/q/lib/libq.so"))
    options = mounts(View(vm="/v", workspace="/w"), system, own_pids=True, inner_map=False)
    made = [after for option, after in pairwise(options) if option == "--dir"]
    assert made == ["/etc", "/opt", "/opt/q", "/opt/q/lib"]


def test_a_mask_is_empty_and_its_way_is_held_in_place() -> None:
    view = View(vm="/v", workspace="/home/me", masks=(".cache/sandbox", ".config/sandbox"))
    options = mounts(view, (), own_pids=True, inner_map=False)
    start = options.index("/workspace") + 1
    assert options[start:] == [
        "--bind", "/home/me/.cache", "/workspace/.cache",
        "--bind", "/home/me/.config", "/workspace/.config",
        "--tmpfs", "/workspace/.cache/sandbox", "--remount-ro", "/workspace/.cache/sandbox",
        "--tmpfs", "/workspace/.config/sandbox", "--remount-ro", "/workspace/.config/sandbox",
        "--remount-ro", "/",
        "--chdir", "/vm",
    ]  # fmt: skip


def test_masked_are_those_below_the_workspace_once() -> None:
    hidden = ["/home/me/.cache/s", "/home/me/.cache/s/inner", "/home/meow", "/etc/x", "/home/me/z"]
    assert masked("/home/me", hidden) == (".cache/s", "z")
    assert masked("/", ["/home/me"]) == ("home/me",)


@pytest.mark.parametrize("workspace", ["/home/me/.cache/s", "/home/me/.cache/s/kvm-vms/a"])
def test_a_workspace_in_our_own_state_is_refused(workspace: str) -> None:
    with pytest.raises(WorkspaceRefused, match="own state"):
        masked(workspace, ["/home/me/.cache/s"])


def test_a_path_too_long_to_mount_is_refused() -> None:
    fits = "/" + "x" * (views.MAX_PATH - 1)
    assert fits in mounts(View(vm="/v", workspace=fits), (), own_pids=True, inner_map=False)
    with pytest.raises(WorkspaceRefused, match="too long"):
        mounts(View(vm="/v", workspace=fits + "x"), (), own_pids=True, inner_map=False)


def test_paths_as_qemu_sees_them() -> None:
    view = View(vm="/v", workspace="/w", files=(Mount("ro-bind", "/i/disk", "/image/disk"),))
    assert inside(view) == {"/w": "/workspace", "/i/disk": "/image/disk"}
    assert inherited({"/w": 7, "/i/disk": 9}) == {
        "/w": "/proc/self/fd/7",
        "/i/disk": "/proc/self/fd/9",
    }


def test_descriptors_name_workspace_and_files_and_are_closed(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    view = View(
        vm=str(tmp_path),
        workspace=str(tmp_path),
        files=(Mount("ro-bind", str(tmp_path / "disk"), "/image/disk"),),
    )
    with descriptors(view) as opened:
        places = inherited(opened)
        assert Path(places[str(tmp_path / "disk")]).read_bytes() == b"disk"
        assert Path(places[str(tmp_path)]).samefile(tmp_path)
    for fd in opened.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
