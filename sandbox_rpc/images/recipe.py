"""What a guest consists of: Debian's packages, our files, what the trimmed one leaves out.

Pure but for reading this package's own files: `images/build.py` does it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from sandbox_rpc.images.mirror import Mirror

SUITE = "trixie"
AGENT_VERSION = 1
"""Of the protocol that the agent in the image speaks: `sandbox-agent/1`."""
SSH_PORT = 22
DISK_MIB = 8192
GUEST = Path(__file__).parent.parent / "guest"
AGENT = GUEST / "agent.pl"

KERNELS: Mapping[str, str] = {"x86_64": "linux-image-amd64", "aarch64": "linux-image-arm64"}
"""By `uname -m`. Never the cloud flavour: it is built without 9p."""
CONSOLES: Mapping[str, str] = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}

PACKAGES: Sequence[str] = (
    # a whole system, not a container
    "systemd", "systemd-sysv", "udev", "dbus", "dbus-user-session", "libpam-systemd",
    "libnss-myhostname", "kmod", "e2fsprogs", "iproute2", "iputils-ping", "procps", "psmisc",
    "lsof", "netbase", "tzdata", "ca-certificates", "perl-base", "busybox-static",
    "initramfs-tools",
    # what everybody reaches for in the first minute
    "openssh-server", "openssh-client", "sudo", "bash-completion", "less", "nano", "vim-tiny",
    "file", "git", "curl", "wget", "rsync", "jq", "python3", "make", "patch",
    "xz-utils", "bzip2", "zstd", "unzip",
)  # fmt: skip

DPKG_OPTIONS: Sequence[str] = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    # Debian's own archives by name, wherever this image was built from.
    "path-include=/usr/share/doc/apt/examples/debian.sources",
    "path-exclude=/usr/share/locale/*",
    # The disk ends with the sandbox: waiting for it to be safe is waiting for nothing.
    "force-unsafe-io",
)

PREPARE = """
set -eu
useradd --create-home --shell /bin/bash --uid 1000 --user-group dev
usermod --append --groups adm,systemd-journal dev
usermod --password '*' dev   # useradd leaves "!", which sshd takes for a locked account
install -d -o dev -g dev -m 0755 /home/dev/workspace
install -d -o dev -g dev -m 0700 /home/dev/.ssh
rm -f /etc/ssh/ssh_host_* /etc/hostname /etc/apt/apt.conf.d/99mmdebstrap
: > /etc/machine-id
ln -sf /etc/machine-id /var/lib/dbus/machine-id
printf '127.0.0.1\\tlocalhost\\n::1\\t\\tlocalhost ip6-localhost ip6-loopback\\n' > /etc/hosts
install -d -m 0755 /var/lib/systemd/linger
# Not the mirror of whoever built it: where the sandbox runs there may be another, or none.
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
{ echo '# Written by sandbox, from the example that apt brings along.'
  sed 's/^Types:.*/Types: deb/; s/^Components:.*/Components: main/' \
    /usr/share/doc/apt/examples/debian.sources
} > /etc/apt/sources.list.d/debian.sources
systemctl --quiet enable sandbox-agent.service
systemctl --quiet disable sshd-keygen.service 2>/dev/null || true
"""
"""Run once in the tree, after the packages and our common files are in it."""

DEBS = "var/cache/sandbox-debs"
FETCH = f"""
set -eu
apt-get install --yes --download-only --no-install-recommends {{packages}}
mkdir -p /{DEBS}
mv /var/cache/apt/archives/*.deb /{DEBS}/
"""
"""Run in the tree before that: packages of variants, to be installed in their copies."""
INSTALL = f"dpkg --install /{DEBS}/*.deb"
INSIDE: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
"""All of the environment in which it runs in the tree."""

STOCK_INITRD = """
set -eu
INITRD=Yes update-initramfs -c -k all
"""

TRIMMED = """
set -eu
touch var/lib/systemd/linger/dev
cd etc/systemd/system
rm -f multi-user.target.wants/ssh.service sockets.target.wants/ssh.socket sshd.service
mkdir -p sysinit.target.wants
ln -sf ../sandbox-ssh.socket ../sandbox-ssh.service sysinit.target.wants/
ln -sf ../sandbox-late.service multi-user.target.wants/sandbox-late.service
ln -sf /usr/lib/systemd/system/multi-user.target default.target
cd ../../..
rm -f etc/fstab etc/modules-load.d/modules.conf etc/modules
rm -f boot/initrd.img-* initrd.img initrd.img.old vmlinuz.old
# As if updated in the future: else each boot of this never updated system rebuilds its caches.
touch -d 2037-01-01 etc/.updated var/.updated
"""
"""Run in the tree as working directory, not as root directory: relative paths only."""

PLAIN = """
set -eu
cd etc/systemd/system
mkdir -p multi-user.target.wants sockets.target.wants network-online.target.wants
units=/usr/lib/systemd/system
ln -sf $units/systemd-networkd.service multi-user.target.wants/systemd-networkd.service
ln -sf $units/systemd-networkd.socket sockets.target.wants/systemd-networkd.socket
ln -sf $units/systemd-networkd-wait-online.service network-online.target.wants/
cd ../../..
printf '/dev/vda / ext4 rw,relatime,x-systemd.growfs 0 0\\n' > etc/fstab
"""

# Needs of a machine that this one is not: no firmware, TPM, disk to check, screen, first boot.
MASKED_UNITS: Sequence[str] = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "man-db.timer",
    "systemd-tmpfiles-clean.timer",
    "console-getty.service", "getty@tty1.service", "getty-static.service",
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "modprobe@configfs.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "ldconfig.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service",
    "systemd-update-done.service", "systemd-sysusers.service",
    "systemd-battery-check.service", "systemd-bootctl.socket", "systemd-creds.socket",
    "systemd-firstboot.service", "systemd-hibernate-clear.service", "systemd-journal-flush.service",
    "systemd-machine-id-commit.service", "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service", "systemd-pcrextend.socket",
    "systemd-pcrlock.socket", "systemd-pcrmachine.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-pstore.service", "systemd-random-seed.service",
    "systemd-sysext.socket", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service",
    "systemd-udev-load-credentials.service",
    # Debian's older ways, with which nothing in the image speaks.
    "systemd-initctl.socket", "run-lock.mount",
    # /tmp on the disk: half of a small guest's memory is not for files.
    "tmp.mount",
    # The root is mounted as it should be; there is no fstab.
    "systemd-remount-fs.service",
    # Holds back logins until everything has started; the agent and sshd know better.
    "systemd-user-sessions.service",
    # Done later, by sandbox-late.service.
    "kmod-static-nodes.service", "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
)  # fmt: skip

PATIENT_UNITS: Sequence[str] = (
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-logind.service",
    "dbus.service", "user@.service", "user-runtime-dir@.service",
    "serial-getty@.service",
)  # fmt: skip
PATIENT = b"""\
[Service]
# Until the system is up, what a first login needs goes first.
StartupCPUWeight=idle
"""

MASKED_GENERATORS: Sequence[str] = (
    "systemd-bless-boot-generator", "systemd-cryptsetup-generator", "systemd-debug-generator",
    "systemd-getty-generator", "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator", "systemd-rc-local-generator", "systemd-run-generator",
    "systemd-ssh-generator", "systemd-system-update-generator", "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
)  # fmt: skip
"""Not fstab's and sysv's: what a user installs may need them."""

MASKED_FILES: Sequence[str] = (
    # Holds logins back until the last unit has started.
    "etc/tmpfiles.d/systemd-nologin.conf",
    # Keeps eth0 the name of the only card, and its renaming off the way.
    "etc/udev/rules.d/80-net-setup-link.rules",
)

BLACKLIST: Sequence[str] = (
    "acpi_cpufreq", "aesni_intel", "ahci", "ata_generic", "ata_piix", "bochs", "cirrus",
    "crct10dif_pclmul", "cdrom", "drm", "efi_pstore", "floppy", "ghash_clmulni_intel", "i2c_i801",
    "i2c_piix4", "i2c_smbus", "i6300esb", "iTCO_wdt", "input_leds", "intel_rapl_common",
    "intel_rapl_msr", "ip_tables", "joydev", "kvm", "kvm_amd", "kvm_intel", "libahci", "libata",
    "lp", "lpc_ich", "mousedev", "parport_pc",
    "pcspkr", "polyval_clmulni", "powernow_k8", "ppdev", "psmouse", "rapl", "serio_raw", "sg",
    "sha1_ssse3", "sha256_ssse3", "sha512_ssse3", "sr_mod", "vmw_vmci", "vmw_vsock_vmci_transport",
)  # fmt: skip
"""Drivers of hardware that is not there or idle here; udev would load them all at each start.

`modprobe NAME` still loads them.
"""

ROOT_MODULES: Sequence[str] = ("virtio_blk", "crc32c_generic", "crc32c_intel", "ext4")
"""What the root file system needs."""

EARLY_MODULES: Sequence[str] = (
    "virtio_net", "9pnet_virtio", "9p", "autofs4", "virtio_rng", "qemu_fw_cfg",
)  # fmt: skip
"""Loaded beside the mounting of the root, so that neither PID 1 nor the agent has to wait for them:
they would look for each, and unpack it, one after the other."""

_QUIET = "quiet loglevel=3 systemd.show_status=false rd.udev.log_level=3"
_TRIMMED_ARGUMENTS = (
    # What the kernel would probe for and a virtual machine does not have.
    "8250.nr_uarts=1 i8042.noaux i8042.nokbd i8042.nopnp i8042.noprobe raid=noautodetect"
    " cryptomgr.notests nowatchdog no_timer_check audit=0"
    " rcupdate.rcu_expedited=1 random.trust_cpu=on net.ifnames=0"
    # Debian's, less those that nothing here uses; with bpf PID 1 compiles a program at each start.
    " lsm=landlock,lockdown,yama,integrity,apparmor"
)
"""Nothing that weakens the guest's kernel: mitigations and KASLR are as Debian has them."""


@frozen
class Variant:
    """One way to finish the tree."""

    name: str
    script: str
    quiet: bool
    stock_initrd: bool = False
    """Whether it has initramfs-tools' initrd instead of ours."""
    packages: tuple[str, ...] = ()
    """Installed into its own copy of the tree, when all else is in it."""
    files: Path | None = None
    """A folder of files to lay over the tree; None: ours of its name."""


TRIM = Variant("trimmed", TRIMMED, quiet=True)
"""Debian that starts fast: the product."""
STOCK = Variant("plain", PLAIN, quiet=False, stock_initrd=True)
"""Debian as it comes, with initramfs-tools' initrd: what the bench compares with."""


def command_line(variant: Variant, arch: str) -> str:
    """The kernel arguments an image wants, at most 1500 of the 2048 bytes that x86 takes."""
    words = ["root=/dev/vda", "rw", f"console={CONSOLES[arch]}", "panic=-1"]
    if variant.quiet:
        words += [_QUIET, _TRIMMED_ARGUMENTS]
    return " ".join(words)


def mmdebstrap(arch: str, mirror: Mirror | None, target: str) -> list[str]:
    """The command that makes the tree; our common files are in it, the variants' are not."""
    argv = ["mmdebstrap", "--mode=unshare", "--variant=minbase", "--verbose"]
    argv += [f"--include={','.join((*PACKAGES, KERNELS[arch]))}"]
    argv += [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    argv += [f"--aptopt={option}" for option in (mirror.apt_options if mirror else ())]
    argv += [f"--format={'directory' if target != '-' else 'tar'}", SUITE, target]
    return argv + (list(mirror.sources(SUITE)) if mirror else [])


def overlay(variant: str, arch: str, folder: Path | None = None) -> bytes:
    """A tar of our files for `base` or a variant's name: root's, with the modes they must have.

    `folder` has the files of a variant that is not ours.

    Files only, never folders: extracting a folder would reset the mode of one that is there.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in _files(variant, arch, folder):
            entry = tarfile.TarInfo(name)
            if isinstance(content, Path):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(content)
                tar.addfile(entry)
                continue
            entry.size = len(content)
            entry.mode = _mode(name)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _mode(name: str) -> int:
    if name.startswith("usr/local/sbin/"):
        return 0o755
    return 0o440 if name.startswith("etc/sudoers.d/") else 0o644


def _files(
    variant: str, arch: str, folder: Path | None = None
) -> Iterator[tuple[str, bytes | Path]]:
    folder = folder or GUEST / "rootfs" / variant
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix().replace("ttyS0", CONSOLES[arch])
            yield name, path.read_bytes()
    if variant == "base":
        yield "usr/local/sbin/sandbox-agent", AGENT.read_bytes()
    if variant == TRIM.name:
        null = Path("/dev/null")
        for unit in MASKED_UNITS:
            yield f"etc/systemd/system/{unit}", null
        for generator in MASKED_GENERATORS:
            yield f"etc/systemd/system-generators/{generator}", null
        for name in MASKED_FILES:
            yield name, null
        getty = f"etc/systemd/system/getty.target.wants/serial-getty@{CONSOLES[arch]}.service"
        yield getty, Path("../serial-getty@.service")
        lines = "".join(f"blacklist {module}\n" for module in BLACKLIST)
        yield "etc/modprobe.d/sandbox.conf", lines.encode()
        for unit in PATIENT_UNITS:
            yield f"etc/systemd/system/{unit}.d/sandbox.conf", PATIENT
