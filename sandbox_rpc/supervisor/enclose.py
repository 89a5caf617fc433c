"""Which box a start gets, on this host, for this QEMU and this folder's owner."""

from __future__ import annotations

import errno
import json
import os
import pwd
from pathlib import Path

import anyio

from sandbox_rpc.config.values import Settings
from sandbox_rpc.host import files
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import WorkspaceRefused
from sandbox_rpc.qemu import box as boxes
from sandbox_rpc.qemu import probe
from sandbox_rpc.qemu.box import Account, Box, Policy
from sandbox_rpc.qemu.capabilities import Qemu


async def choose_box(layout: Layout, qemu: Qemu, settings: Settings, workspace: str) -> Box:
    """The box for this host, this QEMU and this folder's owner; the probe is remembered."""
    found = await anyio.to_thread.run_sync(recall_probe, layout, qemu.path)
    policy = Policy(
        str(settings.box_namespace), str(settings.box_filter), str(settings.box_seccomp)
    )
    return boxes.choose(
        policy,
        found,
        owner=owner_of(workspace),
        me=Account(os.geteuid(), os.getegid()),
    )


def owner_of(workspace: str) -> Account:
    """Whom a folder belongs to: its owner, with the owner's own group where that is known."""
    stat = os.stat(workspace)
    try:
        return Account(stat.st_uid, pwd.getpwuid(stat.st_uid).pw_gid)
    except KeyError:
        return Account(stat.st_uid, stat.st_gid)


def recall_probe(layout: Layout, qemu: str) -> boxes.Probe:
    """What this host can do for the box; asked again when anything it depends on has changed."""
    key = probe.fingerprint(qemu)
    try:
        known = json.loads(layout.box_probe.read_bytes())
        if known["key"] == key:
            return convert.from_wire(known["probe"], boxes.Probe)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = probe.probe(qemu)
    layout.box_probe.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(layout.box_probe, json.dumps({"key": key, "probe": convert.to_wire(found)}))
    return found


def check_xattr(workspace: str, *, forced: bool) -> None:
    """Make sure that the workspace's file system keeps the attributes `mapped-xattr` needs.

    Raises:
        WorkspaceRefused: it does not; the guest could not change an owner or a mode.
    """
    try:
        os.getxattr(workspace, "user.virtfs.mode")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            return  # no such attribute: it could have one
        raise WorkspaceRefused(
            f"The file system of {workspace} has no user extended attributes, "
            "which workspace.security = mapped-xattr needs.",
            hint="This host cannot filter setuid files, so mapped-xattr is a must for root: start "
            "it as an ordinary user, or share a folder on another file system."
            if forced
            else "Use workspace.security = none, or share a folder on another file system.",
            path=workspace,
        ) from None


def missing_layers(box: Box) -> list[str]:
    """What the user should know of walls that do not stand."""
    missing = [
        f"The box lacks its layer {layer.name}: {layer.detail}."
        for layer in box.layers
        if not layer.active
    ]
    if not box.maps_to_dev and box.account.uid == 0:
        missing.append(
            "Without a user namespace root's folder stays root's in the guest: "
            "dev needs sudo to write to the workspace."
        )
    return missing


def hand_over(path: Path, box: Box) -> None:
    """Give a file to the user that QEMU will be."""
    if box.changes_user:
        os.chown(path, box.account.uid, box.account.gid)


def hand_over_all(folder: Path, box: Box) -> None:
    """The same for a folder with all that is in it, where it was another user's so far."""
    if os.geteuid() != 0 or folder.stat().st_uid == box.account.uid:
        return
    for _, folders, names, fd in os.fwalk(folder):
        for name in (*folders, *names):
            os.chown(name, box.account.uid, box.account.gid, dir_fd=fd, follow_symlinks=False)
    # Last, so that one which was interrupted is done again.
    os.chown(folder, box.account.uid, box.account.gid)
