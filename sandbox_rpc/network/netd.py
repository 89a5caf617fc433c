"""The network process of one machine: frames between QEMU and libslirp, until QEMU closes."""

from __future__ import annotations

import ctypes
import select
import signal
import socket
from typing import Any

from sandbox_rpc import __version__
from sandbox_rpc.network import libslirp, slirp
from sandbox_rpc.network import policy as rules
from sandbox_rpc.network.control import Answer, Control
from sandbox_rpc.network.forwards import Forwards
from sandbox_rpc.network.gate import Gate
from sandbox_rpc.network.outlet import ACKNOWLEDGEMENT, Outlet
from sandbox_rpc.network.own import OwnAddresses
from sandbox_rpc.network.policy import Mode, Policy
from sandbox_rpc.network.settings import Forward, Start
from sandbox_rpc.protocol.errors import NetworkFailed

INTAKE = 512 << 10
"""Bytes read from QEMU in one go."""
IDLE_MS = 60_000
HIGH_WATER = 1 << 20
"""Bytes waiting for QEMU above which nothing more is read from the host's sockets."""
READABLE = select.POLLIN | select.POLLHUP | select.POLLERR
RESOLVER = "/etc/resolv.conf"


class Netd:
    """All of it; `run` returns when the machine has ended."""

    def __init__(self, start: Start, layers: list[tuple[str, bool, str]]) -> None:
        self._layers = layers
        self._own_view = start.resolver is not None
        self._qemu = socket.socket(fileno=start.qemu)
        self._qemu.setblocking(False)
        self._outlet = Outlet(self._qemu)
        terms = start.terms
        self._policy = Policy(terms)
        self._own = OwnAddresses()
        self._refresh()
        is_open = terms.mode is Mode.OPEN
        self._slirp = slirp.Slirp(
            slirp.Options(
                restricted=not is_open,
                host_loopback=is_open and bool(terms.host_ports),
                dns=is_open,
                dhcp=terms.dhcp,
                mtu=start.mtu,
            ),
            self._to_guest,
        )
        self._gate = Gate(self._policy, self._slirp.input, self._outlet.append)
        self._intake = bytearray(INTAKE)
        self._intake_view = memoryview(self._intake)
        self._intake_base = ctypes.addressof((ctypes.c_char * INTAKE).from_buffer(self._intake))
        self._filled = 0
        self._sockets = 0
        self._resolvers = 0
        self._forwards = Forwards(self._slirp)
        for route in start.routes:
            self._slirp.add_unix(route.address, route.port, route.path)
        for forward in start.forwards:
            self._forwards.add(forward)
        self._control = Control(socket.socket(fileno=start.control), self._serve)
        self._ended = False

    def run(self) -> None:
        """Serve until QEMU closes its end.

        Raises:
            FrameError: QEMU's stream is out of step.
        """
        signal.signal(signal.SIGTERM, self._end)
        poll = select.poll()
        known: dict[int, int] = {}
        qemu = self._qemu.fileno()
        while not self._ended:
            wanted: dict[int, int] = {}
            wait_ms = IDLE_MS
            # A guest that does not take its frames is not given more: TCP then slows the sender.
            reading = self._outlet.waiting < HIGH_WATER
            if reading:
                wanted, wait_ms = self._slirp.interests(IDLE_MS)
                self._sockets = len(wanted)
            wanted[qemu] = select.POLLIN | (select.POLLOUT if self._outlet.waiting else 0)
            wanted[self._own.fileno()] = select.POLLIN
            for fd in self._control.descriptors():
                wanted[fd] = select.POLLIN
            if wanted != known:
                _synchronize(poll, known, wanted)
                known = wanted
            ready = dict(poll.poll(wait_ms))
            if ready.get(self._own.fileno(), 0):
                self._refresh()
            try:
                if ready.get(qemu, 0) & READABLE and not self._take():
                    return
                if reading:
                    self._slirp.dispatch(ready)
                self._outlet.flush()
            except (BrokenPipeError, ConnectionResetError):
                return  # QEMU was killed
            if self._slirp.failure is not None:
                failure = self._slirp.failure
                if isinstance(failure, (BrokenPipeError, ConnectionResetError)):
                    return
                raise failure
            for fd in self._control.descriptors():
                if ready.get(fd, 0):
                    self._control.handle(fd)

    def close(self) -> None:
        """Close every socket."""
        self._control.close()
        self._slirp.close()
        self._forwards.close()
        self._own.close()
        self._qemu.close()

    def _end(self, *_: object) -> None:
        self._ended = True

    def _take(self) -> bool:
        """Take in what QEMU has sent; False at the end of the stream."""
        try:
            received = self._qemu.recv_into(self._intake_view[self._filled :])
        except BlockingIOError:
            return True
        if not received:
            return False
        filled = self._filled + received
        used = self._gate.admit(self._intake, self._intake_base, filled)
        if used < filled and used:
            self._intake[: filled - used] = self._intake[used:filled]
        self._filled = filled - used
        return True

    def _to_guest(self, address: int, size: int) -> None:
        outlet = self._outlet
        if size != ACKNOWLEDGEMENT or not outlet.acknowledge(address):
            start = outlet.write(address, size)
            if start and not self._gate.may_enter(outlet.buffer, start):
                outlet.take_back(size)
                return
        outlet.flush_early()

    def _refresh(self) -> None:
        self._policy.set_own(self._own.read())

    def _serve(self, method: str, params: dict[str, Any], descriptors: list[int]) -> Answer:
        match method:
            case "status":
                return self._status(), []
            case "forward/add":
                port = int(params["guest_port"])
                (fd,) = descriptors
                descriptors.clear()
                self._forwards.add(Forward(fd, port))
                return {}, []
            case "forward/remove":
                return {"removed": self._forwards.remove(str(params["address"]))}, []
            case "forward/list":
                return self._forwards.describe(), self._forwards.descriptors()
            case "cable":
                return {}, [self._qemu.fileno()]
            case "resolver":
                self._write_resolver(str(params["text"]))
                return {}, []
        raise NetworkFailed(f"The network process knows no {method}.")

    def _status(self) -> dict[str, Any]:
        gate, outlet = self._gate, self._outlet
        return {
            "version": __version__,
            "libslirp": libslirp.probe().version,
            "mode": str(self._policy.terms.mode),
            "layers": [
                {"name": name, "active": active, "detail": detail}
                for name, active, detail in self._layers
            ],
            "forwards": self._forwards.describe(),
            "own": [str(network) for network in self._policy.own],
            "sockets": self._sockets,
            "frames": {
                "admitted": gate.admitted, "refused": gate.refused, "dropped": gate.dropped,
                "sent": outlet.sent, "lost": outlet.dropped,
            },
            "refusals": [
                {
                    "address": socket.inet_ntoa(to), "protocol": rules.NAMES.get(protocol, ""),
                    "port": port, "reason": reason, "count": count,
                }
                for (to, protocol, port), (reason, count) in gate.refusals.items()
            ],
        }  # fmt: skip

    def _write_resolver(self, text: str) -> None:
        if not self._own_view:
            return  # it sees the host's own file
        # libslirp takes a file of the same second and size for the same file.
        self._resolvers += 1
        try:
            with open(RESOLVER, "w") as file:
                file.write(f"{text}{'#' * self._resolvers}\n")
        except OSError as error:
            raise NetworkFailed(f"The resolver's address cannot be kept: {error}.") from None


def _synchronize(poll: select.poll, known: dict[int, int], wanted: dict[int, int]) -> None:
    for fd, events in wanted.items():
        if known.get(fd) != events:
            poll.register(fd, events)
    for fd in known.keys() - wanted.keys():
        poll.unregister(fd)
