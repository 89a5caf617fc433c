"""Ports into the guest where QEMU's own network stack has to do, by its monitor."""

from __future__ import annotations

import errno
import os
import re

from sandbox_rpc.network import launch
from sandbox_rpc.protocol.errors import NetworkFailed
from sandbox_rpc.protocol.types import Forward
from sandbox_rpc.qemu.qmp import Qmp, QmpError

LOOPBACK = "127.0.0.1"
PRIVILEGED = 1024
FORWARD = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE)


class UserNet:
    """The forwards of QEMU's `-netdev user`; QEMU itself takes the ports and keeps the list."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp

    async def forwards(self) -> list[Forward]:
        """All of them, that of SSH included.

        Raises:
            NetworkFailed: QEMU does not say.
        """
        return [
            Forward(LOOPBACK, int(port), int(to))
            for address, port, to in FORWARD.findall(await self._say("info usernet"))
            if address == LOOPBACK
        ]

    async def add(self, guest_port: int, host_port: int) -> Forward:
        """Let a port of the host, 0: any, lead to one of the guest.

        Raises:
            OSError: the port cannot be had.
            NetworkFailed: QEMU refuses.
        """
        # QEMU does not say why it refuses a port; trying it first does.
        launch.listen_on_loopback(host_port).close()
        before = await self.forwards()
        answer = await self._say(f"hostfwd_add net tcp:{LOOPBACK}:{host_port}-:{guest_port}")
        # Success and failure are both text; the table says which it was.
        for one in await self.forwards():
            if one not in before and one.guest_port == guest_port:
                return one
        if 0 < host_port < PRIVILEGED:
            # Root may have it, QEMU in its box may not.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        raise NetworkFailed(f"QEMU opens no port to the guest's {guest_port}: {answer.strip()}")

    async def remove(self, host_port: int) -> None:
        """Let a port refuse again.

        Raises:
            NetworkFailed: QEMU does not answer.
        """
        await self._say(f"hostfwd_remove net tcp:{LOOPBACK}:{host_port}")

    async def _say(self, line: str) -> str:
        try:
            return await self._qmp.human(line)
        except QmpError as error:
            raise NetworkFailed(f"QEMU does not do `{line}`: {error}") from None
