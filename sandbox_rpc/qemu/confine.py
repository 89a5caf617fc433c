"""Start a program under the setuid filter, without privileges, where bubblewrap cannot.

    python -P confine.py [--filter] [--uid UID --gid GID [--group GID]] -- PROGRAM ARGUMENT...

This very process becomes the program: pid, inherited descriptors and the locks on them carry over.
Standard library only; it runs before each start.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path
from typing import NoReturn

PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C"}

FAILED = 126
"""Exit status where the program was not started, as a shell has it."""


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Turn from root into another user, for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def forgo_capabilities(libc: ctypes.CDLL) -> None:
    """Give up what the process holds: effective, permitted, inheritable, ambient.

    With no_new_privs, root does not get them back by executing a program either.
    """
    _call(libc, "prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _call(libc, "capset", header, (ctypes.c_uint32 * 6)())


def main(arguments: list[str]) -> NoReturn:
    """Do as the command line says; ends the process with status 126 where a step fails."""
    parser = argparse.ArgumentParser(prog="confine")
    parser.add_argument("--filter", action="store_true")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--group", type=int, action="append", default=[])
    parser.add_argument("argv", nargs="+")
    chosen = parser.parse_args(arguments)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if chosen.uid is not None:
            become(chosen.uid, chosen.gid, chosen.group)
        forgo_capabilities(libc)
        _call(libc, "prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if chosen.filter:
            from sandbox_rpc.qemu import filter as setuid_filter

            setuid_filter.load()
        os.execve(chosen.argv[0], chosen.argv, ENVIRONMENT)
    except Exception as error:
        sys.stderr.write(f"confine: {chosen.argv[0]}: {error}\n")
        sys.exit(FAILED)


if __name__ == "__main__":
    # Run by its path, not by `-m`: the working directory is one that QEMU may write, so it must not
    # be searched for modules, and the package need not be installed (it may lie in a .vsix).
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1:])
