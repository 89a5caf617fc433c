"""A guest's network by libslirp, the system's user-mode TCP/IP stack.

One instance is one guest network 10.0.2.0/24. Not thread safe: everything here is called from one
thread, and callbacks run inside `Slirp.input`, `Slirp.dispatch` and the constructor.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from ctypes import c_uint32
from typing import NamedTuple

from sandbox_rpc.network import libslirp

POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 2, 4, 8, 16, 32
# libslirp numbers the same events differently, and PRI is left out in both directions: its code for
# urgent data is where Debian's versions have a known fault.
_WANTED = {ours: (POLLIN if ours & 1 else 0) | (POLLOUT if ours & 2 else 0) for ours in range(32)}
_HAPPENED = {
    theirs: (1 if theirs & POLLIN else 0)
    | (2 if theirs & POLLOUT else 0)
    | (8 if theirs & (POLLERR | POLLNVAL) else 0)
    | (16 if theirs & POLLHUP else 0)
    for theirs in range(64)
}

Output = Callable[[int, int], None]
"""Takes a frame for the guest: its address in memory, valid during the call, and its size."""


class Options(NamedTuple):
    """What one instance is made with. Addresses are dotted."""

    restricted: bool
    """Nothing but forwards: the second wall behind the policy in `proxy` and `offline`."""
    host_loopback: bool
    """Whether 10.0.2.2 is the host's loopback; the policy then decides by port."""
    dns: bool
    """Whether 10.0.2.3 answers, by the host's resolver."""
    dhcp: bool
    mtu: int
    network: str = "10.0.2.0"
    mask: str = "255.255.255.0"
    router: str = "10.0.2.2"
    guest: str = "10.0.2.15"
    nameserver: str = "10.0.2.3"


class Slirp:
    """One guest network.

    An exception in `output` cannot pass through C: it is kept in `failure` for the loop to look at.
    """

    def __init__(self, options: Options, output: Output) -> None:
        self._library = libslirp.load()
        self._output = output
        self._timers: dict[int, tuple[int, int, int | None]] = {}
        self._next_timer = 1
        self._events: dict[int, int] = {}
        self._ready: Mapping[int, int] = {}
        self._routes: list[bytes] = []
        self.failure: BaseException | None = None
        # What C holds on to must outlive it.
        self._callbacks = libslirp.Callbacks(
            libslirp.SEND(self._send),
            libslirp.MESSAGE(lambda _message, _: None),
            libslirp.CLOCK(lambda _: time.monotonic_ns()),
            libslirp.TIMER_NEW(lambda _callback, _argument, _: None),
            libslirp.TIMER_FREE(self._free_timer),
            libslirp.TIMER_MOD(self._set_timer),
            libslirp.DESCRIPTOR(lambda _fd, _: None),
            libslirp.DESCRIPTOR(lambda _fd, _: None),
            libslirp.NOTIFY(lambda _: None),
            libslirp.COMPLETED(lambda _instance, _: None),
            libslirp.TIMER_NEW_OPAQUE(self._new_timer),
        )
        self._add_poll = libslirp.ADD_POLL(self._want)
        self._get_events = libslirp.GET_EVENTS(self._happened)
        config = libslirp.Config(
            version=libslirp.CONFIG_VERSION,
            restricted=options.restricted,
            in_enabled=True,
            vnetwork=_number(options.network),
            vnetmask=_number(options.mask),
            vhost=_number(options.router),
            in6_enabled=False,
            vdhcp_start=_number(options.guest),
            vnameserver=_number(options.nameserver),
            if_mtu=options.mtu,
            if_mru=options.mtu,
            disable_host_loopback=not options.host_loopback,
            enable_emu=False,
            disable_dns=not options.dns,
            disable_dhcp=not options.dhcp,
        )
        self._guest = options.guest
        self._instance = self._library.slirp_new(
            ctypes.byref(config), ctypes.byref(self._callbacks), None
        )
        if not self._instance:
            raise OSError("libslirp made no instance")
        self._input = self._library.slirp_input

    def close(self) -> None:
        """Close all its sockets; nothing else may be called after it."""
        self._library.slirp_cleanup(self._instance)

    def input(self, address: int, size: int) -> None:
        """Take a frame from the guest; it is copied."""
        self._input(self._instance, address, size)

    def interests(self, wait_ms: int) -> tuple[dict[int, int], int]:
        """Descriptors to poll, with poll(2)'s events, and how many ms to wait at most."""
        self._events = {}
        limit = c_uint32(wait_ms)
        self._library.slirp_pollfds_fill(self._instance, ctypes.byref(limit), self._add_poll, None)
        wait_ms = min(wait_ms, limit.value)
        if self._timers:
            now = time.monotonic_ns() // 1_000_000
            for _, _, expires in self._timers.values():
                if expires is not None:
                    wait_ms = min(wait_ms, max(0, expires - now))
        return self._events, wait_ms

    def dispatch(self, ready: Mapping[int, int]) -> None:
        """Serve what poll(2) has found, and all that is due."""
        self._ready = ready
        self._library.slirp_pollfds_poll(self._instance, 0, self._get_events, None)
        if self._timers:
            now = time.monotonic_ns() // 1_000_000
            for key, (kind, argument, expires) in list(self._timers.items()):
                if expires is not None and expires <= now:
                    self._timers[key] = (kind, argument, None)
                    self._library.slirp_handle_timer(self._instance, kind, argument)

    def add_unix(self, address: str, port: int, path: str) -> None:
        """Connect each of the guest's connections to `address` and `port` to a unix socket.

        Raises:
            OSError: the address is not in the guest's network, or taken.
        """
        name = os.fsencode(path)
        where = c_uint32(_number(address))
        if self._library.slirp_add_unix(self._instance, name, ctypes.byref(where), port):
            raise OSError(f"libslirp refuses {address} port {port}")
        self._routes.append(name)

    def forward(self, listener: socket.socket, guest_port: int) -> None:
        """Lead the connections of a listening socket to a port of the guest; takes the socket.

        libslirp only makes listening sockets of its own. It is made to make one, and ours is put in
        its place under the same number: so whoever has handed it over can hold it as well, and a
        successor of this process takes connections that came when there was none.

        Raises:
            OSError: libslirp refuses.
        """
        own = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton("127.0.0.1"))
        guest = struct.pack(
            "=H2s4s8x",
            socket.AF_INET, guest_port.to_bytes(2, "big"), socket.inet_aton(self._guest),
        )  # fmt: skip
        number = _next_descriptor(listener)
        if self._library.slirp_add_hostxfwd(self._instance, own, len(own), guest, len(guest), 0):
            raise OSError(f"libslirp makes no forward to port {guest_port}")
        if not _listens(number):
            raise OSError("libslirp's listening socket is not where it should be")
        os.dup2(listener.fileno(), number, inheritable=False)
        listener.close()

    def remove_forward(self, address: bytes) -> bool:
        """Stop listening at a `struct sockaddr`; connections that are open stay. False: no such."""
        result = self._library.slirp_remove_hostxfwd(self._instance, address, len(address), 0)
        return bool(result == 0)

    def _send(self, address: int | None, size: int, _: int | None) -> int:
        try:
            if address:
                self._output(address, size)
        except BaseException as error:
            self.failure = error
        return size

    def _want(self, fd: int, events: int, _: int | None) -> int:
        # The index libslirp asks back with may be any number: the descriptor itself.
        self._events[fd] = self._events.get(fd, 0) | _WANTED[events & 31]
        return fd

    def _happened(self, fd: int, _: int | None) -> int:
        return _HAPPENED[self._ready.get(fd, 0) & 63]

    def _new_timer(self, kind: int, argument: int | None, _: int | None) -> int:
        key = self._next_timer
        self._next_timer += 1
        self._timers[key] = (kind, argument or 0, None)
        return key

    def _free_timer(self, key: int | None, _: int | None) -> None:
        self._timers.pop(key or 0, None)

    def _set_timer(self, key: int | None, expires_ms: int, _: int | None) -> None:
        if key in self._timers:
            kind, argument, _expires = self._timers[key]
            self._timers[key] = (kind, argument, expires_ms)


def _number(address: str) -> int:
    return int(struct.unpack("=I", socket.inet_aton(address))[0])


def _next_descriptor(any_socket: socket.socket) -> int:
    # The kernel gives the lowest free number, and this process has one thread.
    number = os.dup(any_socket.fileno())
    os.close(number)
    return number


def _listens(fd: int) -> bool:
    try:
        copy = socket.socket(fileno=os.dup(fd))
    except OSError:
        return False
    with copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
