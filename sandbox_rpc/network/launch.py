"""Start a machine's network process, in a view of its own where the host allows one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from sandbox_rpc.host import files, sockets
from sandbox_rpc.network import confine, control, resolver, settings
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.network.settings import Forward, Route, Start
from sandbox_rpc.protocol.errors import NetworkFailed

START_LIMIT_S = 20.0
CALL_LIMIT_S = 10.0
PAUSE_S = 0.01


class Wish(NamedTuple):
    """What the guest may reach; fields as in `settings.Start`."""

    mode: Mode
    allow: tuple[str, ...] = ()
    host_ports: tuple[int, ...] = ()
    pins: tuple[tuple[str, int], ...] = ()
    routes: tuple[Route, ...] = ()
    """With paths of the host."""
    dhcp: bool = False
    mtu: int = settings.MTU
    namespace: str = "auto"
    """`auto`, `require` or `off`, as for QEMU's box."""


class Running(NamedTuple):
    """A network process."""

    pid: int
    """As the host sees it."""
    control: socket.socket
    """Blocking, with a time limit; readable without a question means that the process has ended."""


def launch(
    wish: Wish,
    *,
    peer: socket.socket,
    control_socket: Path,
    listeners: Sequence[tuple[socket.socket, int]],
    log: Path,
) -> Running:
    """Start the process on a connection to QEMU, from `connect_to_qemu`.

    `peer` stays the caller's: as long as it is held, QEMU does not see the process end. So do
    `listeners` (socket, port of the guest): as long as they are held, connections wait for the next
    network process instead of being refused. Takes some 0.2 s; blocks.

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
            return _start(wish, peer, control_socket, listeners, log, bwrap, "")
        except NetworkFailed as failure:
            if wish.namespace == "require":
                raise
            reason = f"bubblewrap does not start it: {failure.message}"
    if wish.namespace == "require":
        raise NetworkFailed(f"box.namespace = require, but {reason}.")
    # On the same connection: one that did not come up has hardly begun a frame, and else the next
    # one ends of it and is replaced.
    return _start(wish, peer, control_socket, listeners, log, None, reason)


def connect_to_qemu(path: Path) -> socket.socket:
    """A connection to QEMU's network socket; QEMU takes one at a time, others wait. Never blocks.

    Raises:
        NetworkFailed: QEMU has gone; or one waits already, and the details have `full`.
    """
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        one.setblocking(False)
        with sockets.short(path) as name:
            one.connect(name)
    except OSError as error:
        one.close()
        raise NetworkFailed(
            f"QEMU's network socket cannot be reached: {error}.",
            full=isinstance(error, BlockingIOError),
        ) from None
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        one.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return one


def _start(
    wish: Wish,
    peer: socket.socket,
    control_socket: Path,
    listeners: Sequence[tuple[socket.socket, int]],
    log: Path,
    bwrap: str | None,
    namespace: str,
) -> Running:
    with ExitStack() as stack:
        server = stack.enter_context(bind(control_socket))
        config = os.memfd_create("network", os.MFD_CLOEXEC)
        stack.callback(os.close, config)
        folders = sorted({os.path.realpath(Path(route.path).parent) for route in wish.routes})
        start = Start(
            mode=wish.mode, qemu=peer.fileno(), control=server.fileno(),
            allow=wish.allow, host_ports=wish.host_ports, pins=wish.pins,
            routes=tuple(_seen(route, folders) if bwrap else route for route in wish.routes),
            forwards=tuple(Forward(one.fileno(), port) for one, port in listeners),
            dhcp=wish.dhcp, mtu=wish.mtu,
            resolver=resolver.read() if bwrap else None,
            namespace=namespace,
            readable=() if bwrap else tuple(resolver.folders()),
        )  # fmt: skip
        os.write(config, settings.dump(start))
        os.lseek(config, 0, os.SEEK_SET)
        with files.translated(log):
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, output)
        child = subprocess.Popen(
            confine.boxed(bwrap, config, folders) if bwrap else confine.plain(config),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
            env=confine.environment(str(confine.package_root())), start_new_session=True,
            pass_fds=[config, start.qemu, start.control, *(one.fd for one in start.forwards)],
            umask=0o077,
        )  # fmt: skip
    return await_answer(control_socket, child, log)


def await_answer(control_socket: Path, child: subprocess.Popen[bytes], log: Path) -> Running:
    """Reach a process that has just been started; one that does not answer in time is ended.

    Raises:
        NetworkFailed: it did not come up; with the end of its log.
    """
    try:
        return _attach(control_socket, child)
    except NetworkFailed as failure:
        if child.returncode is None:
            # With what is in its box, which outlives bubblewrap's own end.
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise NetworkFailed(f"{failure.message} {_last_words(log)}") from None


def _attach(control_socket: Path, child: subprocess.Popen[bytes]) -> Running:
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        with suppress(NetworkFailed):
            running = attach(control_socket)
            control.call(running.control, "status")
            return running
        if child.poll() is not None:
            raise NetworkFailed(f"The network process ended with status {child.returncode}.")
        time.sleep(PAUSE_S)
    raise NetworkFailed("The network process did not come up in time.")


def attach(control_socket: Path) -> Running:
    """Reach the network process that is there; also one that another supervisor has started.

    Raises:
        NetworkFailed: there is none.
    """
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        one.settimeout(CALL_LIMIT_S)
        with sockets.short(control_socket) as name:
            one.connect(name)
        data = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError as error:
        one.close()
        raise NetworkFailed(f"There is no network process: {error}.", ended=True) from None
    return Running(struct.unpack("=i", data[:4])[0], one)


def listen_on_loopback(port: int = 0) -> socket.socket:
    """A listening socket for SSH or a forward on 127.0.0.1; 0: the kernel's choice.

    Raises:
        OSError: the port is taken.
    """
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # A port whose last connections are still ending can be had again.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        one.listen(64)
    except OSError:
        one.close()
        raise
    return one


def listen_on_unix(path: Path) -> socket.socket:
    """The same on a unix socket, 0600, in place of what was there."""
    one = bind(path, socket.SOCK_STREAM)
    one.listen(64)
    return one


def _seen(route: Route, folders: Sequence[str]) -> Route:
    path = Path(route.path)
    folder = confine.route_folder(folders.index(os.path.realpath(path.parent)))
    return route._replace(path=f"{folder}/{path.name}")


def bind(path: Path, kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """A unix socket, 0600, in place of what was there; nobody can connect yet.

    Raises:
        OSError, PermissionDenied, DiskFull: it cannot be there.
    """
    one = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        with files.translated(path), sockets.short(path) as name:
            one.bind(name)
        path.chmod(0o600)
    except BaseException:
        one.close()
        raise
    return one


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return " / ".join(lines[-3:]) or "It said nothing."
