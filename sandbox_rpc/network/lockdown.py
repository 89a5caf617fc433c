"""What the network process forbids itself before it sees the first frame. Standard library only.

    landlock   no file can be opened, where the kernel has it; signals and abstract sockets of
               others out of reach, where it is new enough
    seccomp    no program, no child, no other's memory, no mount, no namespace, and of sockets only
               those of IPv4 and netlink
    limits     files of 4 MiB, so that a guest cannot fill the disk with libslirp's warnings;
               2048 descriptors, hence so many connections; no core file

It holds with and without bubblewrap's view (`confine`). A list of what is refused rather than of
what is allowed: Python and libc differ between hosts in what they call.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 4, 22, 38
SECCOMP_MODE_FILTER = 2
MAX_FILE = 4 << 20
MAX_DESCRIPTORS = 2048

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
"""System calls since 5.13 have one number on all machines."""
RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights on files a version of Landlock knows; later ones know 16."""
WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
REMOVE_FILE, MAKE_REG = 1 << 5, 1 << 8
SCOPED_ABI = 6
SCOPE_ALL = 3
RULE_PATH_BENEATH = 1

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's number of the ABI, and the column in `REFUSED`."""
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "personality": (135, 92),
    "socketpair": (53, 199),
}
SOCKET = (41, 198)

_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
CLONE_THREAD = 0x10000
_X32 = 0x40000000


def program(machine: str, families: Iterable[int], *, threads: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`; sockets of `families` can be made.

    `threads`: they can be started, processes cannot all the same.

    Raises:
        KeyError: not a machine we know the numbers of.
    """
    abi, column = ARCHITECTURES[machine]
    body: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, abi),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        body += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for name, numbers in REFUSED.items():
        if (number := numbers[column]) is None:
            continue
        if threads and name == "clone3":
            # Its flags lie in memory, out of a filter's sight; libc then takes clone.
            body += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
        elif threads and name == "clone":
            body += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16), (_ANY_OF, 0, 1, CLONE_THREAD)]
            body += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EPERM)]
        else:
            body += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    allowed = list(families)
    body += [(_EQUAL, 0, 2 + 2 * len(allowed), SOCKET[column]), (_LOAD, 0, 0, 16)]
    for family in allowed:
        body += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    body += [(_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *one) for one in body)


def lock_down(
    *,
    unix: bool,
    readable: Sequence[str],
    writable: bool = False,
    changing: Sequence[str] = (),
    growing: Sequence[str] = (),
    threads: bool = False,
    ipv6: bool = False,
    max_file: int = MAX_FILE,
) -> list[tuple[str, bool, str]]:
    """Forbid it all, for good; what came of it as (layer, whether it holds, detail).

    `unix`, `ipv6`: whether such sockets can still be made. `readable`: folders whose files can
    still be read, and written where `writable` says so; those of `changing` in any case; in those
    of `growing` files can also be made, renamed and removed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(max_file)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Else another process of the user could read our memory, and we would not be alone in here.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    write = WRITE_FILE | TRUNCATE
    folders = dict.fromkeys(readable, READ_FILE | READ_DIR | (write if writable else 0))
    folders |= dict.fromkeys(changing, READ_FILE | READ_DIR | write)
    grow = READ_FILE | READ_DIR | write | MAKE_REG | REMOVE_FILE
    folders |= dict.fromkeys(growing, grow)
    families = [socket.AF_INET, socket.AF_NETLINK]
    families += [socket.AF_UNIX] if unix else []
    families += [socket.AF_INET6] if ipv6 else []
    return [_landlock(libc, folders), _seccomp(libc, families, threads=threads)]


def _limit(max_file: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, max_file))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _landlock(libc: ctypes.CDLL, folders: Mapping[str, int]) -> tuple[str, bool, str]:
    call = libc.syscall
    abi = call(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return ("landlock", False, "the kernel has no Landlock, or it is switched off")
    rights = (1 << RIGHTS_BY_ABI.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", rights, 0, SCOPE_ALL if abi >= SCOPED_ABI else 0)
    size = 24 if abi >= SCOPED_ABI else 8
    ruleset = call(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return ("landlock", False, os.strerror(ctypes.get_errno()))
    try:
        for folder, access in folders.items():
            try:
                fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            rule = struct.pack("=Qi", access & rights, fd)
            call(LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, ctypes.c_uint32(0))
            os.close(fd)
        if call(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)):
            return ("landlock", False, os.strerror(ctypes.get_errno()))
    finally:
        os.close(ruleset)
    kept = f"no file but below {', '.join(folders)}" if folders else "no file"
    return ("landlock", True, f"it can open {kept}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL, families: Sequence[int], *, threads: bool) -> tuple[str, bool, str]:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    try:
        code = program(machine, map(int, families), threads=threads)
    except KeyError:
        return ("seccomp", False, f"no filter for {machine}")
    what = _Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(what), 0, 0):
        return ("seccomp", False, os.strerror(ctypes.get_errno()))
    return ("seccomp", True, "it can start no program and make no process")
