"""Put QEMU's command line into the box: the list of programs that build it and become QEMU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox_rpc.qemu import confine
from sandbox_rpc.qemu.box import Box, Variant
from sandbox_rpc.qemu.view import View, mounts

GUEST_ID = 1000
"""Uid and gid of the guest's dev."""


def wrap(
    box: Box,
    view: View,
    argv: Sequence[str],
    *,
    info_fd: int | None = None,
    filter_fd: int | None = None,
    tied: bool = False,
    python: str = sys.executable,
) -> list[str]:
    """The command line that starts QEMU's `argv` in the box.

    `argv[0]` is the real path of the binary. `info_fd` is where bubblewrap writes QEMU's pid (see
    `child_pid`), `filter_fd` where it reads the filter (`filter.descriptor`): both needed in USER
    and OWNER, both unused in PLAIN. To be started in a session of its own, with `view.vm` as
    working directory, and with these and all other descriptors that QEMU inherits passed on.
    `tied` lets QEMU end with whoever starts it, as far as the variant can.

    Raises:
        WorkspaceRefused: the workspace's path is too long to be mounted.
    """
    if box.variant is Variant.PLAIN:
        return [*_confine(box, view, python), "--", *argv]
    program = list(argv)
    if box.variant is Variant.OWNER:
        program = [*_become(box, view), *program]
    return [
        box.probe.tools.bwrap,
        *_namespaces(box, view),
        *(("--die-with-parent",) if tied else ()),
        *mounts(
            view,
            box.probe.system,
            own_pids=box.probe.own_pids,
            inner_map=box.variant is Variant.OWNER,
        ),
        *(() if info_fd is None else ("--info-fd", str(info_fd))),
        *(() if filter_fd is None or not box.filtered else ("--seccomp", str(filter_fd))),
        "--",
        *program,
    ]


def _namespaces(box: Box, view: View) -> list[str]:
    options: list[str] = []
    if box.variant is Variant.USER:
        identity = str(GUEST_ID)
        options += ["--unshare-user", "--uid", identity, "--gid", identity]
        if box.probe.sealed:
            options.append("--disable-userns")
    if box.probe.own_pids:
        # Process 1 itself, no reaper between: its death is QEMU's death, its status QEMU's status.
        options += ["--unshare-pid", "--as-pid-1"]
    options += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if view.network_namespace:
        options.append("--unshare-net")
    options += ["--cap-drop", "ALL"]
    if box.variant is Variant.OWNER:
        # To become the owner, and until then to enter the owner's closed folder; gone with root.
        for capability in ("SETUID", "SETGID", "SETPCAP", "DAC_READ_SEARCH"):
            options += ["--cap-add", f"CAP_{capability}"]
    options.append("--clearenv")
    for name, value in confine.ENVIRONMENT.items():
        options += ["--setenv", name, value]
    return options


def _extra_groups(box: Box, view: View) -> list[int]:
    return [box.probe.kvm_gid] if view.kvm and box.probe.kvm_gid is not None else []


def _become(box: Box, view: View) -> list[str]:
    groups = _extra_groups(box, view)
    return [
        box.probe.tools.setpriv,
        "--reuid", str(box.account.uid),
        "--regid", str(box.account.gid),
        *(("--groups", ",".join(map(str, groups))) if groups else ("--clear-groups",)),
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--",
        box.probe.tools.unshare,
        "--user",
        f"--map-user={GUEST_ID}",
        f"--map-group={GUEST_ID}",
        "--",
    ]  # fmt: skip


def _confine(box: Box, view: View, python: str) -> list[str]:
    options = [python, "-P", str(Path(confine.__file__))]
    if box.filtered:
        options.append("--filter")
    if box.changes_user:
        options += ["--uid", str(box.account.uid), "--gid", str(box.account.gid)]
        for group in _extra_groups(box, view):
            options += ["--group", str(group)]
    return options


def child_pid(info_fd: int) -> int:
    """QEMU's pid on the host, read from the other end of the pipe that `wrap` got as `info_fd`.

    Blocks for milliseconds: bubblewrap says it before it makes the view, so a box that fails later
    shows in the process's early end. The writing end must be closed here, else a bubblewrap that
    fails at once is waited for.

    Raises:
        ValueError: bubblewrap failed; its stderr says why.
    """
    info = b""
    while not info.rstrip().endswith(b"}") and (part := os.read(info_fd, 4096)):
        info += part
    return int(json.loads(info)["child-pid"])
