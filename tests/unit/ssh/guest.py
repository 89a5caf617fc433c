"""An SSH server that runs what it is asked to on this machine, with paramiko in sshd's place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from paramiko import common

from sandbox_rpc.ssh.config import LOOPBACK, Endpoint

CHUNK = 1 << 15
FAILURES = (OSError, EOFError, paramiko.SSHException)


class Guest:
    """Listens on a loopback port; made by `guest`."""

    def __init__(self, folder: Path, max_sessions: int) -> None:
        self.key = make_key(folder / "client")
        self._host_key = make_key(folder / "host")
        self.max_sessions = max_sessions
        self.logins: list[paramiko.Transport] = []
        """Every connection so far that has logged in."""
        self.children: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, and its key."""
        public = self._host_key.with_suffix(".pub").read_text().split()
        return Endpoint(self._listener.getsockname()[1], " ".join(public[:2]))

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(bool(one.is_active()) for one in self.logins)

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for transport in self.logins:
            transport.close()
        for child in self.children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                transport = Transport(raw)
                transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(self._host_key))
                with suppress(*FAILURES):
                    transport.start_server(event=threading.Event(), server=Login(self, transport))


class Transport(paramiko.Transport):  # type: ignore[misc]
    """Knows the request `signal`, which paramiko does not."""

    def __init__(self, raw: socket.socket) -> None:
        super().__init__(raw)
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.answered: list[threading.Thread] = []
        """To be started when the request under way has its answer: nothing may come before it."""
        table: dict[int, Any] = paramiko.Transport._channel_handler_table
        self._channel_handler_table = {**table, common.MSG_CHANNEL_REQUEST: self._request}

    def _request(self, channel: Any, message: Any) -> None:
        copy = paramiko.Message(message.asbytes())
        copy.get_int()
        if copy.get_text() != "signal":
            paramiko.Transport._channel_handler_table[common.MSG_CHANNEL_REQUEST](channel, message)
            while self.answered:
                self.answered.pop().start()
            return
        copy.get_boolean()
        child = self.children[channel.get_id()]
        answer = common.cMSG_CHANNEL_SUCCESS
        try:
            os.killpg(child.pid, signal.Signals[f"SIG{copy.get_text()}"])
        except ProcessLookupError:
            answer = common.cMSG_CHANNEL_FAILURE
        reply = paramiko.Message()
        reply.add_byte(answer)
        reply.add_int(channel.remote_chanid)
        self._send_user_message(reply)


class Login(paramiko.ServerInterface):  # type: ignore[misc]
    """One connection."""

    def __init__(self, guest: Guest, transport: Transport) -> None:
        self._guest = guest
        self._transport = transport
        self._sessions = 0

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = self._guest.key.with_suffix(".pub").read_text().split()[1]
        if username != "dev" or key.get_base64() != known:
            return int(paramiko.AUTH_FAILED)
        self._guest.logins.append(self._transport)
        return int(paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if self._sessions >= self._guest.max_sessions:
            return int(paramiko.OPEN_FAILED_CONNECT_FAILED)
        self._sessions += 1
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        child = subprocess.Popen(
            ["bash", "-c", command], start_new_session=True, cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._guest.children.append(child)
        self._transport.children[channel.get_id()] = child
        self._transport.answered.append(
            threading.Thread(target=self._carry, args=(channel, child), daemon=True)
        )
        return True

    def _carry(self, channel: Any, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        threading.Thread(target=_write, args=(channel, child.stdin), daemon=True).start()
        readers = [
            threading.Thread(target=_read, args=(child.stdout, channel.sendall), daemon=True),
            threading.Thread(
                target=_read, args=(child.stderr, channel.sendall_stderr), daemon=True
            ),
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        status = child.wait()
        message = paramiko.Message()
        message.add_byte(common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        if status >= 0:
            message.add_string("exit-status")
            message.add_boolean(False)
            message.add_int(status)
        else:
            message.add_string("exit-signal")
            message.add_boolean(False)
            message.add_string(signal.Signals(-status).name.removeprefix("SIG"))
            message.add_boolean(False)
            message.add_string("")
            message.add_string("")
        self._sessions -= 1
        with suppress(*FAILURES):
            self._transport._send_user_message(message)
            channel.close()


@contextmanager
def guest(folder: Path, *, max_sessions: int = 1000) -> Iterator[Guest]:
    """A guest that takes so many commands on each connection."""
    running = Guest(folder, max_sessions)
    try:
        yield running
    finally:
        running.close()


def make_key(path: Path) -> Path:
    """A new key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def _write(channel: Any, pipe: Any) -> None:
    with suppress(*FAILURES), pipe:
        while data := channel.recv(CHUNK):
            pipe.write(data)
            pipe.flush()


def _read(pipe: Any, send: Any) -> None:
    with suppress(*FAILURES), pipe:
        while data := pipe.read1(CHUNK):
            send(data)
