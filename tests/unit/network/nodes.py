"""Network namespaces for tests: processes that make sockets and run programs inside one.

A `Node` is a process in a network namespace of its own. It hands out sockets, which belong to its
namespace wherever they are used, and calls functions. Works for ordinary users: the first node
makes a user namespace as well, the others live in that.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS = 0x10000000, 0x40000000, 0x00020000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
LIMIT_S = 60
MAX = 1 << 20

T = TypeVar("T")


class Node:
    """A process in a namespace."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self._line = line
        line.settimeout(LIMIT_S)

    @classmethod
    def first(cls, *, mounts: bool = False) -> Node:
        """A node in a new user namespace, in which it is root; with `mounts` of its own as well."""
        ours, theirs = _line()
        uid, gid = os.geteuid(), os.getegid()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _unshare(CLONE_NEWUSER | CLONE_NEWNET | (CLONE_NEWNS if mounts else 0))
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
                Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
                _serve(theirs)
            finally:
                os._exit(1)
        theirs.close()
        node = cls(pid, ours)
        node.ip("link set lo up")
        return node

    def another(self) -> Node:
        """A node in another network namespace of the same user namespace."""
        pid, line = self._ask(_fork)
        node = Node(pid, socket.socket(fileno=line[0]))
        node.ip("link set lo up")
        return node

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a module's function in the node; its exceptions come back."""
        result: T = self._ask(function, *arguments)[0]
        return result

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this namespace, with a time limit."""
        _, (fd,) = self._ask(_make_socket, int(family), int(kind))
        one = socket.socket(fileno=fd)
        one.settimeout(LIMIT_S)
        return one

    def tap(self, name: str) -> int:
        """Make a tap interface; the descriptor of its other end."""
        _, (fd,) = self._ask(_make_tap, name)
        return fd

    def ip(self, words: str) -> str:
        """Run ip(8)."""
        return self.call(_run, ["ip", *words.split()])

    def run(self, *argv: str) -> str:
        """Run a program to its end; its output."""
        return self.call(_run, list(argv))

    def stop(self) -> None:
        """End it, and its namespace with the last socket of it."""
        self._line.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[int]]:
        self._line.send(pickle.dumps((function, arguments)))
        data, fds, _, _ = socket.recv_fds(self._line, MAX, 4)
        if not data:
            raise EOFError("the node has ended")
        worked, result = pickle.loads(data)
        if not worked:
            raise result
        return result, fds


def _line() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _unshare(what: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _serve(line: socket.socket) -> None:
    # What the test process had open is not ours to keep open, or to hold a lock with.
    os.closerange(3, line.fileno())
    os.closerange(line.fileno() + 1, 4096)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while data := line.recv(MAX):
        fds: list[int] = []
        try:
            function, arguments = pickle.loads(data)
            result = function(*arguments)
            if isinstance(result, _With):
                result, fds = result.value, result.fds
            answer = pickle.dumps((True, result))
        except Exception as error:
            try:
                answer = pickle.dumps((False, error))
                pickle.loads(answer)
            except Exception:
                answer = pickle.dumps((False, RuntimeError(repr(error))))
        socket.send_fds(line, [answer], fds)
        for fd in fds:
            os.close(fd)
    os._exit(0)


class _With:
    def __init__(self, value: Any, fds: list[int]) -> None:
        self.value = value
        self.fds = fds


def _fork() -> _With:
    ours, theirs = _line()
    pid = os.fork()
    if pid == 0:
        try:
            _unshare(CLONE_NEWNET)
            _serve(theirs)
        finally:
            os._exit(1)
    theirs.close()
    return _With(pid, [ours.detach()])


def _make_socket(family: int, kind: int) -> _With:
    return _With(None, [socket.socket(family, kind).detach()])


def _make_tap(name: str) -> _With:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return _With(None, [fd])


def _run(argv: list[str]) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")
    return done.stdout
