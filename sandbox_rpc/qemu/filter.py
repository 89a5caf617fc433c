"""The setuid filter: a seccomp program under which QEMU cannot make a setuid file on the host.

With 9p's security model `none` a chmod in the guest is a chmod on the host, so the guest's root
could leave a setuid file of QEMU's user behind. Under this filter

    EPERM    chmod fchmod fchmodat fchmodat2, open openat creat that make a file, mknod mknodat,
             each only where the mode has S_ISUID
    ENOSYS   openat2 (its mode lies in memory, out of a filter's sight) and io_uring_setup (a ring
             opens files without a system call); callers fall back on the calls above
    killed   calls of another ABI than the native one (i386 and x32 on x86_64), whose numbers differ

and all else is as ever. S_ISGID stays allowed: 9p's mkdir sends it in setgid folders. mkdir is not
listed, since the kernel drops S_ISUID from a new folder's mode, and it would mean nothing there.

Standard library only, so that `confine` can load it before anything else is imported.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sandbox_rpc.protocol.errors import ToolMissing

S_ISUID = 0o4000
O_CREAT = os.O_CREAT
O_TMPFILE = 0o20000000
"""The bit that is O_TMPFILE's own; the constant of that name contains O_DIRECTORY too."""

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000

ACT_BADARCH = 2
MASKED_EQ = 7
UNKNOWN = -1

Condition = tuple[int, int]
"""Index of an argument, and the bits that are all set in it."""

REFUSED: tuple[tuple[str, int, tuple[Condition, ...]], ...] = (
    ("chmod", errno.EPERM, ((1, S_ISUID),)),
    ("fchmod", errno.EPERM, ((1, S_ISUID),)),
    ("fchmodat", errno.EPERM, ((2, S_ISUID),)),
    ("fchmodat2", errno.EPERM, ((2, S_ISUID),)),
    # Without one of these two flags the mode is not read and holds whatever was in the register.
    ("open", errno.EPERM, ((1, O_CREAT), (2, S_ISUID))),
    ("open", errno.EPERM, ((1, O_TMPFILE), (2, S_ISUID))),
    ("openat", errno.EPERM, ((2, O_CREAT), (3, S_ISUID))),
    ("openat", errno.EPERM, ((2, O_TMPFILE), (3, S_ISUID))),
    ("creat", errno.EPERM, ((1, S_ISUID),)),
    ("mknod", errno.EPERM, ((1, S_ISUID),)),
    ("mknodat", errno.EPERM, ((2, S_ISUID),)),
    ("openat2", errno.ENOSYS, ()),
    ("io_uring_setup", errno.ENOSYS, ()),
)

NUMBERS = {"fchmodat2": 452, "openat2": 437, "io_uring_setup": 425}
"""Calls that the installed libseccomp may be too old to know; the same number on every machine."""


class Comparison(ctypes.Structure):
    """libseccomp's `struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


@cache
def library() -> ctypes.CDLL:
    """The system's libseccomp.

    Raises:
        ToolMissing: it is not there, or not what it should be.
    """
    try:
        found = ctypes.CDLL("libseccomp.so.2")
        found.seccomp_init.argtypes = [ctypes.c_uint32]
        found.seccomp_init.restype = ctypes.c_void_p
        found.seccomp_release.argtypes = [ctypes.c_void_p]
        found.seccomp_release.restype = None
        found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
        found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
        found.seccomp_rule_add_exact_array.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(Comparison),
        ]
        found.seccomp_load.argtypes = [ctypes.c_void_p]
        found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    except (OSError, AttributeError) as error:
        raise ToolMissing(
            f"The setuid filter needs libseccomp: {error}.",
            hint="Install it (Debian: apt-get install libseccomp2).",
            tool="libseccomp",
            package="libseccomp2",
        ) from error
    return found


def build() -> bytes:
    """The program as an array of `struct sock_filter`, the form of `bwrap --seccomp FD`.

    Raises:
        ToolMissing: libseccomp cannot make it.
    """
    with _opened() as fd:
        content = bytearray()
        while part := os.read(fd, 65536):
            content += part
    return bytes(content)


def descriptor() -> int:
    """A descriptor to read the program from, for `bwrap --seccomp FD`; the caller closes it.

    Raises:
        ToolMissing: libseccomp cannot make it.
    """
    with _opened() as fd:
        return os.dup(fd)


def load() -> None:
    """Put this process and all it will start under the filter, for good.

    The process must have no_new_privs set; `seccomp_load` sets it by itself as well.

    Raises:
        ToolMissing: libseccomp cannot make it, or the kernel does not take it.
    """
    with _ruled() as context:
        _check(library().seccomp_load(context), "load the filter")


@contextmanager
def _opened() -> Iterator[int]:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        with _ruled() as context:
            _check(library().seccomp_export_bpf(context, fd), "write the filter")
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _ruled() -> Iterator[int]:
    seccomp = library()
    context = seccomp.seccomp_init(ALLOW)
    if not context:
        raise ToolMissing("libseccomp cannot make a filter on this machine.", tool="libseccomp")
    try:
        _check(seccomp.seccomp_attr_set(context, ACT_BADARCH, KILL_PROCESS), "refuse other ABIs")
        for name, number, conditions in REFUSED:
            call = seccomp.seccomp_syscall_resolve_name(name.encode())
            if call == UNKNOWN:
                call = NUMBERS[name]
            if call < 0:  # This machine never had it: aarch64 has no open(2), only openat(2).
                continue
            comparisons = (Comparison * len(conditions))(
                *(Comparison(argument, MASKED_EQ, bits, bits) for argument, bits in conditions)
            )
            _check(
                seccomp.seccomp_rule_add_exact_array(
                    context, ERRNO | number, call, len(conditions), comparisons
                ),
                f"refuse {name}",
            )
        yield context
    finally:
        seccomp.seccomp_release(context)


def _check(result: int, purpose: str) -> None:
    if result < 0:
        raise ToolMissing(
            f"libseccomp cannot {purpose}: {os.strerror(-result)}.", tool="libseccomp"
        )
