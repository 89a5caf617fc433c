"""A `Machine` as QEMU's argument list. Pure: most of QEMU's behaviour is tested by comparing lists.

The device list and every PCI address are fixed, so that a machine saved by one version of this
program can be restored by the same one. There is no balloon, no free-page reporting and no
virtio-mem: with copy-on-write memory a discard in one guest would reach the file all guests share.
`Machine` cannot express such a device, and no part of the line is free text.
"""

from __future__ import annotations

from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.qemu.machine import (
    AGENT_PORT,
    MAX_KERNEL_COMMAND_LINE,
    Accelerator,
    Machine,
    Recorded,
    Share,
    StreamNetwork,
)

MEMORY = "memory"
"""Name of the memory's backend; the saved state has it, so it must not change."""


def quoted(value: str) -> str:
    """A value inside a comma-separated option: QEMU reads two commas as one."""
    return value.replace(",", ",,")


def argv(binary: str, machine: Machine) -> list[str]:
    """The complete command line.

    Raises:
        SettingInvalid: the kernel command line is longer than an x86 guest survives.
    """
    if len(machine.kernel_command_line.encode()) > MAX_KERNEL_COMMAND_LINE:
        raise SettingInvalid(
            "The image's kernel command line is too long: "
            f"{len(machine.kernel_command_line.encode())} of {MAX_KERNEL_COMMAND_LINE} bytes.",
            setting="image",
        )
    return [
        binary,
        *_basics(machine),
        *_memory(machine),
        *_boot(machine),
        *_disk(machine),
        *_network(machine),
        *_channels(machine),
        *_entropy(machine),
        *(part for slot, share in enumerate(machine.shares) for part in _share(share, slot)),
        *(part for path in machine.credential_files for part in _credential(path)),
        *(part for name, path in machine.fw_cfg for part in _fw_cfg(name, path)),
        *(_seed(machine.seed) if machine.seed else ()),
        *machine.seccomp,
    ]


def _basics(machine: Machine) -> list[str]:
    board = machine.machine_type
    if machine.arch == "x86_64":
        board += ",usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off"
    else:
        board += ",gic-version=max,dump-guest-core=off"
    if machine.memory is not None:
        board += f",memory-backend={MEMORY}"
    if machine.accelerator is Accelerator.KVM:
        accelerator, cpu = "kvm", "host"
    else:
        # Unbounded, the translation buffer of one guest takes a gigabyte of the host (pitfall 11).
        accelerator, cpu = "tcg,thread=multi,tb-size=256", "max"
    return [
        "-name", quoted(machine.name),
        "-uuid", machine.uuid,
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        # A guest that panics ends QEMU instead of hanging until a limit (pitfall 8).
        "-no-reboot",
        "-machine", board,
        "-accel", accelerator,
        "-cpu", cpu,
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory_mib}M",
        "-rtc", "base=utc,clock=host",
    ]  # fmt: skip


def _memory(machine: Machine) -> list[str]:
    if machine.memory is None:
        return []
    backend = f"memory-backend-file,id={MEMORY},size={machine.memory_mib}M"
    backend += f",mem-path={quoted(machine.memory.path)}"
    if isinstance(machine.memory, Recorded):
        return ["-object", f"{backend},share=on"]
    # A private mapping stops stores. Discards go to the file itself, so where QEMU can do with a
    # descriptor that cannot write, it gets no other.
    sealed = ",readonly=on,rom=off" if machine.memory.sealed else ""
    return ["-object", f"{backend},share=off{sealed}", "-incoming", "defer"]


def _boot(machine: Machine) -> list[str]:
    return [
        "-kernel", machine.kernel,
        "-initrd", machine.initrd,
        "-append", machine.kernel_command_line,
    ]  # fmt: skip


def _disk(machine: Machine) -> list[str]:
    # The backing file is named here and not read from the overlay's header, which the box's view
    # would not resolve; and nothing is ever probed as raw.
    base = quoted(machine.disk.base)
    overlay = quoted(machine.disk.overlay)
    below, between = "base", []
    if machine.disk.template is not None:
        below = "template"
        between = [
            "-blockdev", "driver=file,node-name=template-file,"
                         f"filename={quoted(machine.disk.template)},read-only=on,auto-read-only=off",
            "-blockdev", "driver=qcow2,node-name=template,file=template-file,read-only=on,"
                         "backing=base",
        ]  # fmt: skip
    # The disk is thrown away at the end of the machine's life, so no flush needs to reach the host.
    cache = "cache.direct=off,cache.no-flush=on"
    return [
        "-blockdev", f"driver=file,node-name=base-file,filename={base},read-only=on,"
                     "auto-read-only=off",
        "-blockdev", "driver=qcow2,node-name=base,file=base-file,read-only=on,backing=",
        *between,
        "-blockdev", f"driver=file,node-name=disk-file,filename={overlay},{cache},discard=unmap",
        "-blockdev", f"driver=qcow2,node-name=disk,file=disk-file,backing={below},{cache},"
                     "discard=unmap",
        "-device", f"virtio-blk-pci,drive=disk,{_at(3)}",
    ]  # fmt: skip


def _network(machine: Machine) -> list[str]:
    network = machine.network
    if isinstance(network, StreamNetwork):
        mtu = "" if network.mtu is None else f"host_mtu={network.mtu},"
        # Server, since a client of QEMU 7.2 does not come back to a peer that was replaced.
        return [
            "-netdev", f"stream,id=net,server=on,addr.type=fd,addr.str={network.socket}",
            "-device", f"virtio-net-pci,netdev=net,{mtu}romfile=,{_at(4)}",
        ]  # fmt: skip
    options = ",restrict=on" if network.restricted else ""
    options += "".join(
        f",hostfwd=tcp:127.0.0.1:{forward.host_port}-:{forward.guest_port}"
        for forward in network.forwards
    )
    return [
        "-netdev", f"user,id=net,ipv6=off{options}",
        "-device", f"virtio-net-pci,netdev=net,romfile=,{_at(4)}",
    ]  # fmt: skip


def _channels(machine: Machine) -> list[str]:
    def socket(name: str, descriptor: int, more: str = "") -> str:
        return f"socket,id={name},fd={descriptor},server=on,wait=off{more}"

    log = f",logfile={quoted(machine.console_log)},logappend=on"
    return [
        "-chardev", socket("qmp", machine.qmp),
        "-mon", "chardev=qmp,mode=control",
        "-chardev", socket("serial", machine.serial, log),
        "-serial", "chardev:serial",
        "-device", f"virtio-serial-pci,id=ports,max_ports=4,{_at(5)}",
        "-chardev", socket("agent", machine.agent),
        "-device", f"virtserialport,bus=ports.0,nr=1,chardev=agent,name={AGENT_PORT}",
    ]  # fmt: skip


def _entropy(machine: Machine) -> list[str]:
    random = [
        "-object", "rng-builtin,id=rng",
        "-device", f"virtio-rng-pci,rng=rng,{_at(6)}",
    ]  # fmt: skip
    # The generation id tells a restored kernel to reseed; aarch64's virt board has none before 10.
    generation = ["-device", "vmgenid,guid=auto"] if machine.arch == "x86_64" else []
    return random + generation


def _share(share: Share, slot: int) -> list[str]:
    id_ = f"share{slot}"
    read_only = ",readonly=on" if share.read_only else ""
    return [
        "-fsdev", f"local,id={id_},path={quoted(share.path)},security_model={share.security},"
                  f"multidevs=remap{read_only}",
        "-device", f"virtio-9p-pci,fsdev={id_},mount_tag={share.tag},{_at(8 + slot)}",
    ]  # fmt: skip


def _credential(path: str) -> list[str]:
    return ["-smbios", f"type=11,path={quoted(path)}"]


def _fw_cfg(name: str, path: str) -> list[str]:
    return ["-fw_cfg", f"name={quoted(name)},file={quoted(path)}"]


def _seed(path: str) -> list[str]:
    # Behind the disk's address, so that the disk stays the first one.
    return [
        "-blockdev", f"driver=file,node-name=seed-file,filename={quoted(path)},read-only=on,"
                     "auto-read-only=off",
        "-blockdev", "driver=raw,node-name=seed,file=seed-file,read-only=on",
        "-device", f"virtio-blk-pci,drive=seed,{_at(7)}",
    ]  # fmt: skip


def _at(slot: int) -> str:
    return f"addr=0x{slot:x}"
