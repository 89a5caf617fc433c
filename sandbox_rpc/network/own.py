"""This host's own addresses at the moment, by netlink, with word of every change.

The kernel's local routing table is asked rather than the list of addresses: it also holds what is
this host without being an interface's address.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Network

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
GROUPS = 0x10 | 0x40
"""IPv4 addresses and IPv4 routes."""
TABLE_LOCAL = 255
RTN_LOCAL, RTN_BROADCAST = 2, 3
RTA_DST, RTA_TABLE = 1, 15
ROUND_LIMIT = 1000
"""Datagrams of one answer; the kernel's is finite, this says so."""


class OwnAddresses:
    """Watches them; `fileno()` is readable when they may have changed."""

    def __init__(self) -> None:
        self._news = _netlink(GROUPS)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._news.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._news.close()

    def read(self) -> tuple[IPv4Network, ...]:
        """The addresses, and all news that is older than this answer is forgotten.

        Raises:
            OSError: the kernel does not answer.
        """
        for _ in range(ROUND_LIMIT):
            try:
                self._news.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # news were lost; asking anew makes up for it
                    raise
        return _ask()


def _netlink(groups: int) -> socket.socket:
    family = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    one = socket.socket(socket.AF_NETLINK, family, socket.NETLINK_ROUTE)
    one.bind((0, groups))
    return one


def _ask() -> tuple[IPv4Network, ...]:
    found: list[IPv4Network] = []
    with _netlink(0) as asker:
        asker.settimeout(5)
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        head = struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST_DUMP, 1, 0)
        asker.send(head + body)
        for _ in range(ROUND_LIMIT):
            done, networks = parse(asker.recv(1 << 17))
            found += networks
            if done:
                return tuple(dict.fromkeys(found))
    raise OSError(errno.EPROTO, "the kernel's answer does not end")


def parse(data: bytes) -> tuple[bool, list[IPv4Network]]:
    """Local destinations in one datagram of a dump of routes, and whether it is the last.

    Raises:
        OSError: the kernel reports an error.
    """
    found: list[IPv4Network] = []
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == NLMSG_DONE:
            return True, found
        if kind == NLMSG_ERROR:
            code = struct.unpack_from("=i", data, 16)[0]
            raise OSError(-code, os.strerror(-code))
        if kind == RTM_NEWROUTE and length >= 28:
            network = _local(data[16:length])
            if network is not None:
                found.append(network)
        data = data[max(16, (length + 3) & ~3) :]
    return False, found


def _local(message: bytes) -> IPv4Network | None:
    family, bits, table, kind = struct.unpack_from("=BBxxBxxB", message)
    destination = b"\0\0\0\0"
    attributes = message[12:]
    while len(attributes) >= 4:
        length, name = struct.unpack_from("=HH", attributes)
        if length < 4:
            break
        if name == RTA_DST:
            destination = attributes[4:length]
        elif name == RTA_TABLE:
            table = struct.unpack_from("=I", attributes, 4)[0]
        attributes = attributes[(length + 3) & ~3 :]
    if family != socket.AF_INET or len(destination) != 4:
        return None
    if table != TABLE_LOCAL or kind not in (RTN_LOCAL, RTN_BROADCAST):
        return None
    return IPv4Network((destination, bits), strict=False)
