"""The listening sockets whose connections lead into the guest, by their addresses."""

from __future__ import annotations

import os
import socket
from typing import Any

from sandbox_rpc.network.settings import Forward
from sandbox_rpc.network.slirp import Slirp
from sandbox_rpc.protocol.errors import NetworkFailed


class Forwards:
    """Those of one guest. Each socket is held here as well as by libslirp, to be handed on."""

    def __init__(self, slirp: Slirp) -> None:
        self._slirp = slirp
        self._known: dict[str, tuple[bytes, int, socket.socket]] = {}

    def add(self, forward: Forward) -> None:
        """Take a socket, whatever comes of it.

        Raises:
            NetworkFailed: its address has one, is no loopback address, or libslirp refuses.
        """
        listener = socket.socket(fileno=forward.fd)
        try:
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 1:
                listener.listen(64)
            listener.setblocking(False)
            name, packed = address_of(listener)
            if name in self._known:
                raise NetworkFailed(f"{name} is forwarded already.")
            self._slirp.forward(listener.dup(), forward.guest_port)
        except OSError as error:
            listener.close()
            raise NetworkFailed(f"The forward cannot be made: {error}.") from None
        except NetworkFailed:
            listener.close()
            raise
        self._known[name] = (packed, forward.guest_port, listener)

    def remove(self, name: str) -> bool:
        """Refuse from now on; False where there is no such address."""
        if name not in self._known:
            return False
        packed, _, listener = self._known.pop(name)
        listener.close()
        return self._slirp.remove_forward(packed)

    def describe(self) -> list[dict[str, Any]]:
        """Addresses and ports of the guest, in the order in which they came."""
        return [{"address": name, "guest_port": port} for name, (_, port, _) in self._known.items()]

    def descriptors(self) -> list[int]:
        """The sockets, in the same order."""
        return [listener.fileno() for _, _, listener in self._known.values()]

    def close(self) -> None:
        """Close them."""
        for _, _, listener in self._known.values():
            listener.close()


def address_of(listener: socket.socket) -> tuple[str, bytes]:
    """A listening socket's address for people, and as a `struct sockaddr`.

    Raises:
        NetworkFailed: neither a unix socket nor a loopback one of IPv4.
    """
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        raw = name if isinstance(name, bytes) else os.fsencode(name)
        family = socket.AF_UNIX.to_bytes(2, "little")
        return os.fsdecode(raw), family + raw.ljust(108, b"\0")
    if listener.family != socket.AF_INET or not name[0].startswith("127."):
        raise NetworkFailed("Only loopback addresses and unix sockets are forwarded.")
    packed = (
        socket.AF_INET.to_bytes(2, "little")
        + int(name[1]).to_bytes(2, "big")
        + socket.inet_aton(name[0])
        + bytes(8)
    )
    return f"{name[0]}:{name[1]}", packed
