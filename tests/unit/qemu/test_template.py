"""Which machines may start from one template, and how a template's machine differs from theirs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sandbox_rpc.qemu import command, template
from sandbox_rpc.qemu.machine import (
    Accelerator,
    Disk,
    Machine,
    Recorded,
    Restored,
    Share,
    StreamNetwork,
    UserNetwork,
)
from tests.unit.qemu.test_command import MACHINE, pairs

CABLE = attrs.evolve(MACHINE, network=StreamNetwork(9, 9000))
OWN: dict[str, Any] = {
    "name": "sandbox-other",
    "uuid": "11111111-0000-4000-8000-000000000001",
    "kernel": "/proc/self/fd/7",
    "initrd": "/proc/self/fd/8",
    "disk": Disk("elsewhere.qcow2", "/proc/self/fd/9"),
    "shares": (Share("workspace", "/elsewhere", "mapped-xattr", read_only=True),),
    "network": StreamNetwork(99, 9000),
    "qmp": 50,
    "agent": 51,
    "serial": 52,
    "console_log": "other.log",
    "credential_files": (),
    "fw_cfg": (("opt/one", "file"),),
    "seed": "seed.iso",
    "memory": Restored("/template/memory", sealed=True),
    "seccomp": (),
}
"""Values that each sandbox, or each start of it, has of its own."""
HARDWARE: dict[str, Any] = {
    "arch": "aarch64",
    "machine_type": "pc-i440fx-8.0",
    "accelerator": Accelerator.TCG,
    "memory_mib": 4096,
    "cpus": 3,
    "kernel_command_line": "root=/dev/vda ro",
}
"""Values that a saved machine cannot do without."""


def key(machine: Machine) -> str:
    return template.key(machine, ["build", "image"])


@pytest.mark.parametrize("field", OWN)
def test_what_is_a_sandboxs_own_does_not_matter(field: str) -> None:
    assert key(attrs.evolve(CABLE, **{field: OWN[field]})) == key(CABLE)


@pytest.mark.parametrize("field", HARDWARE)
def test_other_hardware_is_another_template(field: str) -> None:
    assert key(attrs.evolve(CABLE, **{field: HARDWARE[field]})) != key(CABLE)


def test_every_field_of_a_machine_is_the_one_or_the_other() -> None:
    assert {field.name for field in attrs.fields(Machine)} == {*OWN, *HARDWARE}


@pytest.mark.parametrize(
    "changed",
    [
        attrs.evolve(CABLE, network=StreamNetwork(9, 1500)),
        attrs.evolve(CABLE, network=UserNetwork()),
        attrs.evolve(CABLE, shares=(*CABLE.shares, Share("more", "/x", "none"))),
        attrs.evolve(CABLE, shares=(Share("other", "/workspace", "none"),)),
    ],
)
def test_other_devices_are_another_template(changed: Machine) -> None:
    assert key(changed) != key(CABLE)


def test_where_things_come_from_counts_each_for_itself() -> None:
    origins = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], ["a"], ["a", "b", "host"]]
    assert len({template.key(CABLE, origin) for origin in origins}) == len(origins)
    assert len(key(CABLE)) == 32


def test_a_later_format_is_another_template(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(CABLE)
    monkeypatch.setattr(template, "FORMAT", template.FORMAT + 1)
    assert key(CABLE) != before


def test_the_mold_has_nothing_of_a_sandbox() -> None:
    """No name, no folder, no credential, no network that could be reached; all else is the same."""
    sandbox = attrs.evolve(CABLE, shares=(Share("workspace", "/home/me/secret", "none"),))
    mold = template.mold(sandbox, memory="/template/memory", empty="/workspace", network=4)
    line = command.argv("qemu", mold)
    for word in ("sandbox-app", "secret", "credential", MACHINE.uuid):
        assert not any(word in part for part in line), word
    found = pairs(mold)
    assert (
        "-object", "memory-backend-file,id=memory,size=2048M,mem-path=/template/memory,share=on"
    ) in found  # fmt: skip
    assert ("-netdev", "stream,id=net,server=on,addr.type=fd,addr.str=4") in found
    assert "-incoming" not in line
    devices = [pair for pair in found if pair[0] == "-device"]
    assert devices == [pair for pair in pairs(sandbox) if pair[0] == "-device"]


def test_a_sandbox_with_qemus_own_network_is_made_on_a_cable_that_leads_nowhere() -> None:
    """The state of QEMU's network stack cannot be restored; the card has to be the same one."""
    mold = template.mold(MACHINE, memory="m", empty="e", network=4)
    assert isinstance(mold.network, StreamNetwork)
    cards = [
        value
        for machine in (mold, MACHINE)
        for option, value in pairs(machine)
        if option == "-device" and value.startswith("virtio-net")
    ]
    assert cards[0] == cards[1]


@pytest.mark.parametrize(
    ("sealed", "more"), [(True, "share=off,readonly=on,rom=off"), (False, "share=off")]
)
def test_a_restored_machine_waits_for_its_state_on_memory_it_cannot_write(
    sealed: bool, more: str
) -> None:
    machine = template.restored(CABLE, memory="/t/memory", disk="/t/disk.qcow2", sealed=sealed)
    found = pairs(machine)
    assert ("-object", f"memory-backend-file,id=memory,size=2048M,mem-path=/t/memory,{more}") in (
        found
    )
    assert ("-incoming", "defer") in found
    board = next(value for option, value in found if option == "-machine")
    assert board.endswith(",memory-backend=memory")
    drives = [value for option, value in found if option == "-blockdev"]
    assert drives[2:4] == [
        "driver=file,node-name=template-file,filename=/t/disk.qcow2,read-only=on,"
        "auto-read-only=off",
        "driver=qcow2,node-name=template,file=template-file,read-only=on,backing=base",
    ]
    assert "backing=template" in drives[5]
    assert "-smbios" not in command.argv("qemu", machine)


@pytest.mark.parametrize("memory", [None, Recorded("m"), Restored("m", True), Restored("m", False)])
@pytest.mark.parametrize("word", ["balloon", "virtio-mem", "pmem", "free-page", "discard-data"])
def test_no_machine_can_discard_memory(memory: Recorded | Restored | None, word: str) -> None:
    """A discard in a private mapping would reach the file that all share."""
    assert not any(
        word in part for part in command.argv("qemu", attrs.evolve(CABLE, memory=memory))
    )


def test_only_what_becomes_a_template_stores_into_its_file() -> None:
    for memory in (None, Restored("m", True), Restored("m", False)):
        line = command.argv("qemu", attrs.evolve(CABLE, memory=memory))
        assert not any("share=on" in part for part in line)
