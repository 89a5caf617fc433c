"""The network process's view of the host: Python, this room, and nothing that is anybody's. Pure.

    /usr /lib ...            read-only: the interpreter, its library, libslirp
    /program/sandbox_rpc     read-only: this room and the protocol's errors
    /route/N                 read-only: the folder of each socket behind a route, the proxy's
    /etc/resolv.conf         the process's own; the supervisor says what is in it
    /dev                     fresh

No home, no workspace, no /proc, no /etc of the host, and process 1 of its own pid namespace; only
the host's network namespace is kept, that being its work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PROGRAM = "/program"
ROUTE = "/route"
NOBODY = "65534"
ETC_BYTES = 65536
MODULE = "sandbox_rpc.network"
PARTS = ("__init__.py", "network", "protocol")
OPTIONS = ("-S", "-s", "-P", "-B")
"""Without site-packages: the process needs none, so its view has none."""
SYSTEM = ("/lib", "/lib32", "/lib64", "/libx32")
STORES = ("/nix/store", "/gnu/store")


def package_root() -> Path:
    """The folder that `sandbox_rpc` lies in."""
    return Path(__file__).resolve().parents[2]


def environment(root: str) -> dict[str, str]:
    """All that the process inherits."""
    return {"PYTHONPATH": root, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}


def interpreter() -> str:
    """The real path of this Python: in the view there is no virtual environment around it."""
    return os.path.realpath(sys.executable)


def plain(config_fd: int, module: str = MODULE) -> list[str]:
    """The command line without a view."""
    return [interpreter(), *OPTIONS, "-m", module, "--config", str(config_fd)]


def boxed(
    bwrap: str,
    config_fd: int,
    routes: Sequence[str] = (),
    *,
    user_namespace: bool = True,
    module: str = MODULE,
    parts: Sequence[str] = PARTS,
    mounts: Sequence[Sequence[str]] = (),
) -> list[str]:
    """The command line in bubblewrap; `routes` are host folders, seen as `route_folder` says.

    `parts` of our package are in view; `mounts` are bubblewrap's words for more.
    """
    argv = [bwrap]
    if user_namespace:
        argv += ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY, "--disable-userns"]
    argv += ["--unshare-pid", "--as-pid-1", "--unshare-ipc", "--unshare-uts"]
    argv += ["--unshare-cgroup-try", "--cap-drop", "ALL", "--clearenv"]
    for name, value in environment(PROGRAM).items():
        argv += ["--setenv", name, value]
    for folder in ("/usr", *runtime()):
        argv += ["--ro-bind", folder, folder]
    for folder in SYSTEM:
        if os.path.islink(folder):
            argv += ["--symlink", os.readlink(folder), folder]
        else:
            argv += ["--ro-bind-try", folder, folder]
    for folder in STORES:
        argv += ["--ro-bind-try", folder, folder]
    package = package_root() / "sandbox_rpc"
    for part in parts:
        argv += ["--ro-bind", str(package / part), f"{PROGRAM}/sandbox_rpc/{part}"]
    for number, folder in enumerate(routes):
        argv += ["--ro-bind", folder, route_folder(number)]
    for mount in mounts:
        argv += mount
    argv += ["--dev", "/dev", "--size", str(ETC_BYTES), "--tmpfs", "/etc"]
    argv += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    argv += ["--remount-ro", "/", "--chdir", "/", "--"]
    return [*argv, *plain(config_fd, module)]


def route_folder(number: int) -> str:
    """Where the folder of route `number` is in the view."""
    return f"{ROUTE}/{number}"


def runtime() -> list[str]:
    """Folders outside /usr that this Python needs: its prefix, where it has one of its own."""
    wanted = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
    home = os.path.realpath(Path("~").expanduser())
    found = []
    for prefix in sorted(wanted):
        if _below(prefix, ("/usr", *STORES)):
            continue
        if prefix == "/" or _below(home, (prefix,)):
            # Not a prefix of Python's alone: its library only.
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            found += [f"{prefix.rstrip('/')}/lib/{version}", interpreter()]
        else:
            found.append(prefix)
    return found


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
