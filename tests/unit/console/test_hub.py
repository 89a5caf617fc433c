"""Several readers and writers on one serial port, with a socket in the guest's place."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import anyio.abc

from sandbox_rpc.console.hub import Hub
from sandbox_rpc.host import sockets


async def receive(stream: anyio.abc.SocketStream, wanted: bytes) -> bytes:
    """Read until `wanted` has come, 10 s at most."""
    got = b""
    with anyio.fail_after(10):
        while wanted not in got:
            got += await stream.receive()
    return got


def test_all_see_all_may_write_and_none_can_stall(tmp_path: Path) -> None:
    """A second client is no stranger, a late one gets the prompt, a deaf one is let go."""

    async def main() -> None:
        port = socket.socket(socket.AF_UNIX)
        port.bind(str(tmp_path / "serial.sock"))
        port.listen(1)
        hub = Hub(tmp_path / "console.log")
        async with anyio.create_task_group() as group:
            group.start_soon(hub.run, tmp_path / "serial.sock")
            await group.start(hub.serve, tmp_path / "console.sock")
            with anyio.fail_after(10):
                await anyio.wait_readable(port)
            raw, _ = port.accept()
            raw.setblocking(False)
            guest = await anyio.abc.SocketStream.from_socket(raw)
            one = await sockets.connect(tmp_path / "console.sock")
            two = await sockets.connect(tmp_path / "console.sock")
            await anyio.sleep(0.05)
            await guest.send(b"boot\r\ndev@guest:~$ ")
            assert await receive(one, b"$ ") == b"boot\r\ndev@guest:~$ "
            assert await receive(two, b"$ ") == b"boot\r\ndev@guest:~$ "
            await one.send(b"echo 1\n")
            await two.send(b"echo 2\n")
            typed = await receive(guest, b"echo 1\n")
            if b"echo 2\n" not in typed:
                await receive(guest, b"echo 2\n")
            late = await sockets.connect(tmp_path / "console.sock")
            assert await receive(late, b"$ ") == b"dev@guest:~$ "
            # `late` reads nothing more; the guest prints on, and the others get every byte.
            amount = 24 << 20
            got = 0

            async def flood() -> None:
                for _ in range(amount >> 16):
                    await guest.send(b"x" * (1 << 16))

            group.start_soon(flood)
            with anyio.fail_after(60):
                while got < amount:
                    got += len(await one.receive())
            assert got == amount
            await guest.aclose()
            group.cancel_scope.cancel()
        port.close()

    anyio.run(main)
