"""The argument list of a machine: what is told to QEMU, and what never is."""

from __future__ import annotations

import itertools

import attrs
import pytest

from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.qemu.command import argv, quoted
from sandbox_rpc.qemu.machine import (
    MAX_KERNEL_COMMAND_LINE,
    Accelerator,
    Disk,
    Forward,
    Machine,
    Share,
    StreamNetwork,
    UserNetwork,
)

MACHINE = Machine(
    name="sandbox-app",
    uuid="00000000-0000-4000-8000-000000000001",
    arch="x86_64",
    machine_type="pc-i440fx-7.2",
    accelerator=Accelerator.KVM,
    memory_mib=2048,
    cpus=2,
    kernel="/image/vmlinuz",
    initrd="/image/initrd",
    kernel_command_line="root=/dev/vda rw",
    disk=Disk("overlay.qcow2", "/image/disk.qcow2"),
    shares=(Share("workspace", "/workspace", "none"),),
    network=UserNetwork(),
    qmp=5,
    agent=6,
    serial=7,
    console_log="console.log",
    credential_files=("credential.sandbox.identity",),
    seccomp=("-sandbox", "on,spawn=deny"),
)


def pairs(machine: Machine) -> list[tuple[str, str]]:
    """Options with the word after them."""
    line = argv("qemu", machine)
    return list(itertools.pairwise(line))


def test_whole_command_line() -> None:
    """One machine, word for word: a change here is a change of the guest's hardware."""
    assert argv("qemu", MACHINE) == [
        "qemu",
        "-name", "sandbox-app",
        "-uuid", "00000000-0000-4000-8000-000000000001",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        "-machine", "pc-i440fx-7.2,usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off",
        "-accel", "kvm",
        "-cpu", "host",
        "-smp", "2",
        "-m", "2048M",
        "-rtc", "base=utc,clock=host",
        "-kernel", "/image/vmlinuz",
        "-initrd", "/image/initrd",
        "-append", "root=/dev/vda rw",
        "-blockdev", "driver=file,node-name=base-file,filename=/image/disk.qcow2,read-only=on,"
        "auto-read-only=off",
        "-blockdev", "driver=qcow2,node-name=base,file=base-file,read-only=on,backing=",
        "-blockdev", "driver=file,node-name=disk-file,filename=overlay.qcow2,"
        "cache.direct=off,cache.no-flush=on,discard=unmap",
        "-blockdev", "driver=qcow2,node-name=disk,file=disk-file,backing=base,"
        "cache.direct=off,cache.no-flush=on,discard=unmap",
        "-device", "virtio-blk-pci,drive=disk,addr=0x3",
        "-netdev", "user,id=net,ipv6=off",
        "-device", "virtio-net-pci,netdev=net,romfile=,addr=0x4",
        "-chardev", "socket,id=qmp,fd=5,server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", "socket,id=serial,fd=7,server=on,wait=off,logfile=console.log,logappend=on",
        "-serial", "chardev:serial",
        "-device", "virtio-serial-pci,id=ports,max_ports=4,addr=0x5",
        "-chardev", "socket,id=agent,fd=6,server=on,wait=off",
        "-device", "virtserialport,bus=ports.0,nr=1,chardev=agent,name=sandbox.agent",
        "-object", "rng-builtin,id=rng",
        "-device", "virtio-rng-pci,rng=rng,addr=0x6",
        "-device", "vmgenid,guid=auto",
        "-fsdev", "local,id=share0,path=/workspace,security_model=none,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=share0,mount_tag=workspace,addr=0x8",
        "-smbios", "type=11,path=credential.sandbox.identity",
        "-sandbox", "on,spawn=deny",
    ]  # fmt: skip


def test_tcg_bounds_its_translation_buffer() -> None:
    """Emulation names its buffer's size; else a guest takes a gigabyte more of the host."""
    emulated = attrs.evolve(MACHINE, accelerator=Accelerator.TCG)
    assert ("-accel", "tcg,thread=multi,tb-size=256") in pairs(emulated)
    assert ("-cpu", "max") in pairs(emulated)


def test_commas_cannot_add_options() -> None:
    """A comma in a path or name stays in it."""
    odd = attrs.evolve(
        MACHINE,
        name="a,process=b",
        disk=Disk("x,readonly=off", "/b,ase"),
        shares=(Share("workspace", "/w,security_model=passthrough", "none"),),
    )
    assert ("-name", "a,,process=b") in pairs(odd)
    line = argv("qemu", odd)
    assert any("filename=x,,readonly=off," in word for word in line)
    assert any("path=/w,,security_model=passthrough,security_model=none" in word for word in line)
    assert quoted("a,b,,c") == "a,,b,,,,c"


def test_read_only_share_is_enforced_by_qemu() -> None:
    """A read-only workspace is refused on the host's side of the wall."""
    share = Share("workspace", "/workspace", "none", read_only=True)
    assert any(
        word.endswith(",readonly=on")
        for word in argv("qemu", attrs.evolve(MACHINE, shares=(share,)))
    )


def test_forwards_listen_on_loopback_only() -> None:
    """Every port of the host that leads into the guest is bound to 127.0.0.1."""
    network = UserNetwork((Forward(22), Forward(80, 8080)))
    (netdev,) = [v for k, v in pairs(attrs.evolve(MACHINE, network=network)) if k == "-netdev"]
    assert (
        netdev == "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:8080-:80"
    )


def test_a_network_outside_of_qemu() -> None:
    """QEMU listens on what it inherits; the guest is told the size of packets."""
    outside = attrs.evolve(MACHINE, network=StreamNetwork(9, 9000))
    found = pairs(outside)
    assert ("-netdev", "stream,id=net,server=on,addr.type=fd,addr.str=9") in found
    assert ("-device", "virtio-net-pci,netdev=net,host_mtu=9000,romfile=,addr=0x4") in found
    assert not any("user," in word for word in argv("qemu", outside))


def test_a_restricted_network_of_qemus_own() -> None:
    """The fallback of a host without libslirp keeps `offline` offline."""
    network = UserNetwork((Forward(22),), restricted=True)
    (netdev,) = [v for k, v in pairs(attrs.evolve(MACHINE, network=network)) if k == "-netdev"]
    assert netdev == "user,id=net,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"


@pytest.mark.parametrize("word", ["balloon", "virtio-mem", "pmem", "free-page", "-daemonize"])
def test_nothing_that_reaches_shared_memory_or_forks(word: str) -> None:
    """No device can discard memory that clones share, and QEMU never detaches itself."""
    assert not any(word in part for part in argv("qemu", MACHINE))


def test_too_long_kernel_command_line_is_refused() -> None:
    """One byte too many is an error here, where a guest would hang without a word."""
    fits = attrs.evolve(MACHINE, kernel_command_line="x" * MAX_KERNEL_COMMAND_LINE)
    assert argv("qemu", fits)
    with pytest.raises(SettingInvalid):
        argv("qemu", attrs.evolve(fits, kernel_command_line="x" * (MAX_KERNEL_COMMAND_LINE + 1)))


def test_other_architecture() -> None:
    """aarch64 has its own board options and no generation id device."""
    arm = attrs.evolve(MACHINE, arch="aarch64", machine_type="virt-7.2")
    assert ("-machine", "virt-7.2,gic-version=max,dump-guest-core=off") in pairs(arm)
    assert not any("vmgenid" in word for word in argv("qemu", arm))
