"""The network process's control socket: one JSON request in one packet, one answer.

SOCK_SEQPACKET keeps requests apart and brings descriptors along, so a forward arrives as a
listening socket: who asks for it has found out by itself whether the port is free.

    {"method": "status"}                            → {"result": {…}}
    {"method": "forward/add", "guest_port": 3000}   + the socket → {"result": {}}
    {"method": "forward/remove", "address": "…"}    → {"result": {"removed": true}}
    {"method": "forward/list"}                      → {"result": […]} + the sockets
    {"method": "cable"}                             → {"result": {}} + the connection to QEMU
    {"method": "resolver", "text": "nameserver …"}  → {"result": {}}
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sandbox_rpc.protocol.errors import NetworkFailed, SandboxError, from_wire

MAX_PACKET = 64 << 10
MAX_DESCRIPTORS = 64
MAX_CLIENTS = 16

Answer = tuple[Any, list[int]]
"""The result, and descriptors to send along."""
Serve = Callable[[str, dict[str, Any], list[int]], Answer]
"""Does what a method says; takes the descriptors it keeps out of the list."""


class Control:
    """The server's side, without a loop of its own: others poll and call."""

    def __init__(self, listener: socket.socket, serve: Serve) -> None:
        # Listening is what makes this process the one that SO_PEERCRED names to a client.
        listener.listen(MAX_CLIENTS)
        listener.setblocking(False)
        self._listener = listener
        self._serve = serve
        self._clients: dict[int, socket.socket] = {}
        self._spare: int | None = None
        self._reserve()

    def descriptors(self) -> list[int]:
        """What to poll for reading."""
        return [self._listener.fileno(), *self._clients]

    def handle(self, fd: int) -> None:
        """Serve a descriptor that is readable."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._clients:
            self._answer(self._clients[fd])

    def close(self) -> None:
        """Close everything."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._listener.close()

    def _reserve(self) -> None:
        if self._spare is None:
            self._spare = os.dup(self._listener.fileno())

    def _accept(self) -> None:
        # A guest may have used up all descriptors; without one in reserve this would spin.
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        finally:
            try:
                self._reserve()
            except OSError:
                self._spare = None
        if len(self._clients) >= MAX_CLIENTS or self._spare is None:
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client

    def _answer(self, client: socket.socket) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(client, MAX_PACKET, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        if not data:
            del self._clients[client.fileno()]
            client.close()
            return
        sending: list[int] = []
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise NetworkFailed("The request is too long.")
            # Not as bytes: json would guess at other encodings, whose code cannot be read any more.
            request = json.loads(data.decode())
            result, sending = self._serve(str(request.pop("method")), request, descriptors)
            answer: dict[str, Any] = {"result": result}
        except SandboxError as error:
            answer = {"error": error.to_wire()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            failure = NetworkFailed(f"The request does not fit: {error!r}.")
            answer = {"error": failure.to_wire()}
        for descriptor in descriptors:  # what nobody has taken
            with suppress(OSError):
                os.close(descriptor)
        try:
            socket.send_fds(client, [json.dumps(answer).encode()], sending)
        except OSError:
            self._clients.pop(client.fileno(), None)
            client.close()


def call(
    connection: socket.socket, method: str, descriptors: list[int] | None = None, **params: Any
) -> tuple[Any, list[int]]:
    """Ask from the client's side; waits as long as the socket's timeout says.

    Raises:
        NetworkFailed: the process has gone, with `ended`, or does not answer.
        SandboxError: what it answered.
    """
    request = json.dumps({"method": method, **params}).encode()
    try:
        socket.send_fds(connection, [request], descriptors or [])
        data, received, _, _ = socket.recv_fds(connection, MAX_PACKET, MAX_DESCRIPTORS)
    except OSError as error:
        raise NetworkFailed(
            f"The network process does not answer: {error}.",
            ended=not isinstance(error, TimeoutError),
        ) from None
    if not data:
        raise NetworkFailed("The network process has ended.", ended=True)
    answer = json.loads(data)
    if "error" in answer:
        raise from_wire(answer["error"])
    return answer["result"], received
