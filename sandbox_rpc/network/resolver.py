"""The host's name servers, for a network process that does not see the host's files."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
IN_CLOEXEC, IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE = 0x8, 0x80, 0x100
MAX_BYTES = 32 << 10
MAX_LINKS = 16


def read(path: Path = RESOLV_CONF) -> str:
    """What is in resolv.conf that matters: name servers with IPv4 addresses, first things first."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    servers = [words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"]
               and len(words) > 1 and _is_ipv4(words[1])]  # fmt: skip
    return "".join(f"nameserver {server}\n" for server in servers)


def folders(path: Path = RESOLV_CONF) -> list[str]:
    """The folders of the file and of all links on the way to it: where it can be replaced."""
    found: list[str] = []
    for _ in range(MAX_LINKS):
        parent = os.path.realpath(path.parent)
        if parent not in found:
            found.append(parent)
        if not path.is_symlink():
            break
        path = Path(parent, os.readlink(path))
    return found


class Watch:
    """Readable (`fileno`) when the host's name servers may have changed; then `read`."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._add()

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._fd

    def read(self) -> str:
        """The name servers now; news from before is forgotten."""
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass
        self._add()  # a link may lead elsewhere by now
        return read(self._path)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def _add(self) -> None:
        for folder in folders(self._path):
            # The folder, not the file: careful programs replace it.
            mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE
            self._libc.inotify_add_watch(self._fd, os.fsencode(folder), mask)


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
