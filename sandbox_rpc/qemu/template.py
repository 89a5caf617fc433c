"""What a template is made from, and which machines may start from the same one. Pure.

mold       the machine that is booted once and saved, from the machine of a start
key        names the template of such a machine: two with one key are the same hardware
restored   the machine that goes on from it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import attrs

from sandbox_rpc.qemu import command
from sandbox_rpc.qemu.machine import Disk, Machine, Recorded, Restored, StreamNetwork

FORMAT = 1
"""Grows whenever templates of an older version of this program must not be used."""

NO_UUID = "00000000-0000-4000-8000-000000000000"
FOLDER = "/template"
"""Where QEMU sees the files of a template."""


def mold(machine: Machine, *, memory: str, empty: str, network: int) -> Machine:
    """The machine that becomes a template: the same hardware, and nothing that is one sandbox's.

    `memory` is the file that takes the guest's memory and `empty` a folder without content, both as
    QEMU sees them; `network` is a listening socket to which nobody will connect. (The state of
    QEMU's own network stack cannot be restored elsewhere, that of a cable can.)
    """
    of = machine.network
    return attrs.evolve(
        machine,
        name="template",
        uuid=NO_UUID,
        shares=tuple(
            attrs.evolve(share, path=empty, security="none", read_only=False)
            for share in machine.shares
        ),
        network=StreamNetwork(network, of.mtu if isinstance(of, StreamNetwork) else None),
        memory=Recorded(memory),
        credential_files=(), fw_cfg=(), seed=None,
    )  # fmt: skip


def key(machine: Machine, origin: Sequence[str]) -> str:
    """The name of the template for a machine: 32 hexadecimal digits.

    `origin` is what stands behind the words of the command line: QEMU's build, the image, the agent
    and, where the guest runs on the host's processor, that.
    """
    plain = attrs.evolve(
        mold(machine, memory="memory", empty="empty", network=0),
        kernel="kernel", initrd="initrd", disk=Disk("overlay", "base"),
        qmp=0, agent=0, serial=0, console_log="log", seccomp=(),
    )  # fmt: skip
    words = [str(FORMAT), *origin, plain.arch, *command.argv("qemu", plain)]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def restored(machine: Machine, *, memory: str, disk: str, sealed: bool) -> Machine:
    """The machine that goes on where a template was saved; `memory` and `disk` are its files."""
    return attrs.evolve(
        machine,
        memory=Restored(memory, sealed),
        disk=attrs.evolve(machine.disk, template=disk),
        credential_files=(), fw_cfg=(), seed=None,
    )  # fmt: skip
