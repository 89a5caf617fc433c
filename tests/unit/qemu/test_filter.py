"""The setuid filter, loaded into a real process and asked by real system calls."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_rpc.protocol.errors import ToolMissing
from sandbox_rpc.qemu import filter as setuid_filter

AT_FDCWD = -100
X86_64 = platform.machine() == "x86_64"


def number(name: str) -> int:
    known = setuid_filter.library().seccomp_syscall_resolve_name(name.encode())
    return setuid_filter.NUMBERS[name] if known == setuid_filter.UNKNOWN else int(known)


def call(name: str, *arguments: object) -> int:
    """The error number of a raw system call, 0 where it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return 0 if libc.syscall(ctypes.c_long(number(name)), *wide) >= 0 else ctypes.get_errno()


def in_child(work: Callable[[], object], *, filtered: bool = True) -> tuple[int, object]:
    """Wait status of a forked child that did `work`, and what it returned."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.umask(0)
            if filtered:
                setuid_filter.load()
            os.write(w, json.dumps(work()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(w, json.dumps(repr(error)).encode())
            os._exit(1)
    os.close(w)
    with os.fdopen(r, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(pid, 0)[1], json.loads(said) if said else None


OLD = {"chmod", "open", "creat", "mknod"}
"""Calls that only old machines such as x86_64 have."""


def attempts(folder: Path, bits: int) -> dict[str, int]:
    """The error number of each way to give a file the mode `bits`."""
    file = folder / "file"
    file.write_bytes(b"")
    path = os.fsencode(file)
    new = iter(range(1000))

    def fresh() -> bytes:
        return os.fsencode(folder / f"new{next(new)}-{bits:o}")

    creating = os.O_CREAT | os.O_WRONLY
    fd = os.open(file, os.O_RDONLY)
    ways: dict[str, tuple[str, tuple[object, ...]]] = {
        "chmod": ("chmod", (path, bits)),
        "fchmod": ("fchmod", (fd, bits)),
        "fchmodat": ("fchmodat", (AT_FDCWD, path, bits)),
        "open": ("open", (fresh(), creating, bits)),
        "open O_TMPFILE": ("open", (os.fsencode(folder), os.O_TMPFILE | os.O_WRONLY, bits)),
        "openat": ("openat", (AT_FDCWD, fresh(), creating, bits)),
        "openat O_TMPFILE": (
            "openat",
            (AT_FDCWD, os.fsencode(folder), os.O_TMPFILE | os.O_WRONLY, bits),
        ),
        "creat": ("creat", (fresh(), bits)),
        "mknod": ("mknod", (fresh(), stat.S_IFREG | bits, 0)),
        "mknodat": ("mknodat", (AT_FDCWD, fresh(), stat.S_IFREG | bits, 0)),
        "mknod fifo": ("mknod", (fresh(), stat.S_IFIFO | bits, 0)),
    }
    return {
        way: call(name, *arguments)
        for way, (name, arguments) in ways.items()
        if number(name) >= 0 or name not in OLD
    }


def setuid_files(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir() if one.stat().st_mode & stat.S_ISUID]


def test_without_the_filter_each_way_makes_a_setuid_file(tmp_path: Path) -> None:
    status, errors = in_child(lambda: attempts(tmp_path, 0o4755), filtered=False)
    assert status == 0
    assert isinstance(errors, dict)
    assert set(errors.values()) == {0}
    assert len(setuid_files(tmp_path)) >= 4


@pytest.mark.parametrize("bits", [0o4755, 0o4000, 0o6755, 0o7777])
def test_no_way_makes_a_setuid_file(tmp_path: Path, bits: int) -> None:
    status, errors = in_child(lambda: attempts(tmp_path, bits))
    assert status == 0
    assert isinstance(errors, dict)
    assert set(errors.values()) == {errno.EPERM}
    assert len(errors) >= 5
    assert setuid_files(tmp_path) == []


@pytest.mark.parametrize("bits", [0o755, 0o2755, 0o1777, 0o0])
def test_other_modes_work(tmp_path: Path, bits: int) -> None:
    status, errors = in_child(lambda: attempts(tmp_path, bits))
    assert status == 0
    assert isinstance(errors, dict)
    assert set(errors.values()) == {0}
    assert (tmp_path / "file").stat().st_mode & 0o7777 == bits


def test_fchmodat2_is_refused_whether_or_not_libseccomp_knows_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    path = os.fsencode(file)
    _, unfiltered = in_child(lambda: call("fchmodat2", AT_FDCWD, path, 0o755, 0), filtered=False)
    _, refused = in_child(lambda: call("fchmodat2", AT_FDCWD, path, 0o4755, 0))
    _, allowed = in_child(lambda: call("fchmodat2", AT_FDCWD, path, 0o755, 0))
    assert number("fchmodat2") == 452
    assert refused == errno.EPERM
    assert allowed == unfiltered


def test_calls_that_an_old_libseccomp_does_not_know_are_refused_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = setuid_filter.library()
    program = setuid_filter.build()

    class Old:
        """libseccomp from before these calls."""

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def seccomp_syscall_resolve_name(self, name: bytes) -> int:
            known = name.decode() not in setuid_filter.NUMBERS
            return real.seccomp_syscall_resolve_name(name) if known else setuid_filter.UNKNOWN

    monkeypatch.setattr(setuid_filter, "library", Old)
    assert setuid_filter.build() == program


def test_a_mode_without_a_flag_that_makes_files_is_garbage_and_ignored(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    flags = os.O_RDONLY | os.O_DIRECTORY
    assert in_child(lambda: call("openat", AT_FDCWD, path, flags, 0o7777)) == (0, 0)


def test_calls_whose_mode_is_out_of_sight_do_not_exist(tmp_path: Path) -> None:
    def work() -> list[int]:
        how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
        opened = call("openat2", AT_FDCWD, os.fsencode(tmp_path), ctypes.byref(how), 24)
        ring = (ctypes.c_uint8 * 120)()
        return [opened, call("io_uring_setup", 1, ctypes.byref(ring))]

    assert in_child(work) == (0, [errno.ENOSYS, errno.ENOSYS])
    assert in_child(lambda: work()[0], filtered=False) == (0, 0)


def test_mkdir_needs_no_rule_since_the_kernel_drops_the_bit(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert in_child(lambda: os.mkdir(folder, 0o4755)) == (0, None)
    assert folder.stat().st_mode & 0o7777 == 0o755


def test_mkdir_in_a_setgid_folder_works(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    folder = tmp_path / "folder"
    assert in_child(lambda: os.mkdir(folder, 0o2755)) == (0, None)
    assert folder.stat().st_mode & 0o7777 == 0o2755


def test_a_program_started_under_the_filter_stays_under_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    status, code = in_child(lambda: os.spawnvp(os.P_WAIT, "chmod", ["chmod", "u+s", str(file)]))
    assert (status, code) == (0, 1)
    assert setuid_files(tmp_path) == []


if X86_64:

    def test_x32_is_no_way_around(tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"")

        def work() -> int:
            libc = ctypes.CDLL(None, use_errno=True)
            x32_chmod = 0x40000000 + 90
            return int(libc.syscall(ctypes.c_long(x32_chmod), os.fsencode(file), 0o4755))

        status, _ = in_child(work)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGSYS
        assert setuid_files(tmp_path) == []

    def test_i386_is_no_way_around(tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"")
        # mov eax, 15 (chmod); mov ecx, 04755; int 0x80; ret. The path does not matter: the call is
        # ended before it is read.
        code = b"\xb8\x0f\0\0\0\xb9\xed\x09\0\0\xcd\x80\xc3"

        def work() -> None:
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(code)
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            ctypes.CFUNCTYPE(ctypes.c_int)(address)()

        status, _ = in_child(work)
        # SIGSEGV on a kernel without the i386 entry.
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGSEGV)


def test_program_is_an_array_of_sock_filter() -> None:
    program = setuid_filter.build()
    assert program
    assert len(program) % 8 == 0
    fd = setuid_filter.descriptor()
    try:
        assert os.read(fd, 1 << 16) == program
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_missing_library_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    setuid_filter.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", absent)
    try:
        with pytest.raises(ToolMissing) as caught:
            setuid_filter.build()
    finally:
        setuid_filter.library.cache_clear()
    assert "libseccomp" in caught.value.message
    assert "libseccomp2" in (caught.value.hint or "")
