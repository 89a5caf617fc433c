"""Start a machine's proxy, in a view of its own where the host allows one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from sandbox_rpc.host import files
from sandbox_rpc.network import confine, resolver
from sandbox_rpc.network.launch import Running, await_answer, bind
from sandbox_rpc.network.proxy import names, settings
from sandbox_rpc.network.proxy.settings import Start, Wish
from sandbox_rpc.protocol.errors import NetworkFailed

MODULE = "sandbox_rpc.network.proxy"
PARTS = (*confine.PARTS, "host")
LIBRARIES = ("anyio", "h11", "idna", "inotify_simple", "sniffio", "typing_extensions")
"""What the process imports beside the standard library, where this Python has it."""
FOLDER, JOURNAL = "/allow", "/journal"
BACKLOG = 4096
"""Connections that wait for a proxy that is being replaced: more than the network process can have.
It waits itself for a place in a queue that is full."""


def listen(path: Path) -> socket.socket:
    """The socket that guests come to; whoever starts proxies keeps it."""
    one = bind(path, socket.SOCK_STREAM)
    one.listen(BACKLOG)
    return one


def launch(
    wish: Wish, *, listener: socket.socket, machine: int, control_socket: Path, log: Path
) -> Running:
    """Start the process; `machine`: a pidfd whose process it ends with. Takes 0.4 s; blocks.

    Raises:
        NetworkFailed: it did not come up; with what it said.
    """
    bwrap = shutil.which("bwrap")
    if wish.namespace == "off":
        reason = "switched off: box.namespace = off"
    elif bwrap is None:
        reason = "bubblewrap is not installed"
    else:
        try:
            return _start(wish, listener, machine, control_socket, log, bwrap, "")
        except NetworkFailed as failure:
            if wish.namespace == "require":
                raise
            reason = f"bubblewrap does not start it: {failure.message}"
    if wish.namespace == "require":
        raise NetworkFailed(f"box.namespace = require, but {reason}.")
    return _start(wish, listener, machine, control_socket, log, None, reason)


def _start(
    wish: Wish,
    listener: socket.socket,
    machine: int,
    control_socket: Path,
    log: Path,
    bwrap: str | None,
    namespace: str,
) -> Running:
    with ExitStack() as stack:
        server = stack.enter_context(bind(control_socket))
        config = os.memfd_create("proxy", os.MFD_CLOEXEC)
        stack.callback(os.close, config)
        start = Start(
            wish=wish._replace(folder=FOLDER, journal=JOURNAL) if bwrap else wish,
            listener=listener.fileno(), control=server.fileno(), machine=machine,
            names=names.read() if bwrap else None,
            namespace=namespace,
            readable=() if bwrap else (*resolver.folders(), str(names.HOSTS.parent)),
        )  # fmt: skip
        os.write(config, settings.dump(start))
        os.lseek(config, 0, os.SEEK_SET)
        with files.translated(log):
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, output)
        places = libraries()
        if bwrap:
            mounts: list[tuple[str, ...]] = [
                ("--ro-bind", place, f"{confine.PROGRAM}/{Path(place).name}") for place in places
            ]
            mounts += [("--ro-bind", wish.folder, FOLDER), ("--bind", wish.journal, JOURNAL)]
            # anyio looks for it when it is imported; nothing is put there.
            mounts.append(("--size", "65536", "--tmpfs", "/tmp"))
            argv = confine.boxed(bwrap, config, module=MODULE, parts=PARTS, mounts=mounts)
            path = str(confine.package_root())
        else:
            argv = confine.plain(config, MODULE)
            parents = dict.fromkeys(str(Path(place).parent) for place in places)
            path = os.pathsep.join([str(confine.package_root()), *parents])
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
            env=confine.environment(path), start_new_session=True,
            pass_fds=[fd for fd in (config, start.listener, start.control, machine) if fd >= 0],
            umask=0o077,
        )  # fmt: skip
    return await_answer(control_socket, child, log)


def libraries() -> list[str]:
    """The folders and files of what the process imports, and nothing that lies beside them."""
    found = []
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found.append(spec.origin if not spec.submodule_search_locations else
                     spec.submodule_search_locations[0])  # fmt: skip
    return found
