"""One service process and what goes over its pipes, byte by byte.

It shares no code with the package: its frames are its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMIT_S = 60
"""For any one answer, on a busy machine."""
SERVE = (sys.executable, "-P", "-m", "sandbox_rpc", "--stdio")

Message = dict[str, Any]


def frame(message: object, header: str = "Content-Length") -> bytes:
    """A message as it goes over the wire."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return f"{header}: {len(body)}\r\n\r\n".encode() + body


class Ended(AssertionError):
    """The service's output ended."""


class Service:
    """The process. It reads only while it waits for something: a client that stops reading."""

    def __init__(
        self,
        base: Path,
        *,
        env: Mapping[str, str] | None = None,
        command: tuple[str, ...] = SERVE,
        stdin: Any = subprocess.PIPE,
    ) -> None:
        self.log = base.parent / f"{base.name}.log"
        self._log = self.log.open("ab")
        self.process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment(base), **(env or {})},
            cwd=base,
        )
        self.heard: list[Message] = []
        """Everything that has come and that nobody has taken yet."""
        self._buffer = bytearray()
        self._next_id = 0

    @property
    def output(self) -> int:
        """The descriptor of the service's output."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, method: str, params: Any = ..., **more: Any) -> None:
        """Send a notification, or with `id` a request; without `params` the key is left out."""
        message = {"jsonrpc": "2.0", "method": method, **more}
        if params is not ...:
            message["params"] = params
        self.write(frame(message))

    def ask(self, method: str, params: Any = ...) -> int:
        """Send a request; its id."""
        self._next_id += 1
        self.send(method, params, id=self._next_id)
        return self._next_id

    def reply(self, id_: object, limit: float = LIMIT_S) -> Message:
        """Wait for the response with an id; notifications before it stay in `heard`."""
        return self.take(lambda m: "method" not in m and m.get("id", ...) == id_, limit)

    def call(self, method: str, params: Any = ..., limit: float = LIMIT_S) -> Any:
        """The result of a request."""
        message = self.reply(self.ask(method, params), limit)
        assert "error" not in message, message
        return message["result"]

    def fail(self, method: str, params: Any = ..., limit: float = LIMIT_S) -> Message:
        """The error of a request."""
        message = self.reply(self.ask(method, params), limit)
        assert "result" not in message, message
        error: Message = message["error"]
        return error

    def news(self, method: str, limit: float = LIMIT_S) -> Any:
        """The params of the next notification of a method."""
        return self.take(lambda m: m.get("method") == method, limit)["params"]

    def take(self, wanted: Callable[[Message], bool], limit: float = LIMIT_S) -> Message:
        """Wait for the first message that is wanted and remove it from `heard`."""
        deadline = time.monotonic() + limit
        looked = 0
        while True:
            for index in range(looked, len(self.heard)):
                if wanted(self.heard[index]):
                    return self.heard.pop(index)
            looked = len(self.heard)
            self.read(deadline - time.monotonic())

    def read(self, limit: float) -> None:
        """Read once and put what is complete into `heard`."""
        ready, _, _ = select.select([self.output], [], [], max(0.0, limit))
        assert ready, f"nothing came; heard {self.heard[-5:]}\n{self.errors()}"
        data = os.read(self.output, 1 << 20)
        if not data:
            raise Ended(f"the service has ended; heard {self.heard[-5:]}\n{self.errors()}")
        self._buffer += data
        self.heard += messages(self._buffer)

    def read_all(self, limit: float = LIMIT_S) -> None:
        """Read until the output ends."""
        deadline = time.monotonic() + limit
        try:
            while True:
                self.read(deadline - time.monotonic())
        except Ended:
            assert not self._buffer, f"half a message at the end: {bytes(self._buffer[:200])!r}"

    def initialize(self) -> Service:
        """Shake hands."""
        self.call("initialize", {"processId": os.getpid(), "capabilities": {}})
        self.send("initialized", {})
        return self

    def alive(self) -> None:
        """Fail unless it answers."""
        assert self.fail("nobody/there", {})["code"] == -32601

    def wait_until_stuck(self) -> None:
        """Wait until it waits for somebody to read its output: nothing comes any more."""
        size, same = -1, 0
        while same < 5:
            time.sleep(0.05)
            found = pending(self.output)
            same, size = (same + 1, size) if found == size and found else (0, found)

    def close_input(self) -> None:
        """Let it see the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, limit: float = LIMIT_S) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(limit)

    def leave(self) -> int:
        """Part in order; the exit status."""
        self.call("shutdown")
        self.send("exit")
        return self.wait()

    def errors(self) -> str:
        """What it has said on stderr."""
        return self.log.read_text(errors="replace")

    def status_mib(self, field: str) -> float:
        """A field of /proc/PID/status that counts memory, in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def end(self) -> None:
        """End it, whatever it does."""
        # In order first: what it has begun in processes of its own would outlive a kill.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(LIMIT_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()


def pending(descriptor: int) -> int:
    """Bytes that wait in a pipe."""
    found: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
    return found


def messages(buffer: bytearray) -> list[Message]:
    """Take all complete messages from the head of a buffer.

    Raises:
        AssertionError: there is anything else on the wire.
    """
    found: list[Message] = []
    while True:
        header = re.match(rb"Content-Length: (\d+)\r\n(?:Content-Type: [^\r\n]*\r\n)?\r\n", buffer)
        if header is None:
            begin = b"Content-Length: "
            assert buffer[: len(begin)] == begin[: len(buffer)], bytes(buffer[:200])
            return found
        end = header.end() + int(header[1])
        if len(buffer) < end:
            return found
        message = json.loads(buffer[header.end() : end])
        assert message["jsonrpc"] == "2.0"
        found.append(message)
        del buffer[:end]


def environment(base: Path) -> dict[str, str]:
    """That of a user of whom nothing is known but the cache base."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(base),
        "XDG_CONFIG_HOME": str(base / "config"),
        "XDG_CACHE_HOME": str(base / "xdg"),
        "SANDBOX_CACHE_BASE": str(base),
        "SSH_CONFIG_DIR": str(base / "config.d"),
        "TMPDIR": str(base),
    }
