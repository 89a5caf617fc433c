"""What is said to the guest's shell so that exactly one program runs, and nothing else is heard.

sshd hands a command line to the user's shell. Ours goes to the folder, then says on standard error
(on the terminal, where there is one) that it has come so far and which process it is, then becomes
the program. That word is taken out of the output again: with it, a command that failed is told
from one that never began, and everything of the session can be found by its process.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from sandbox_rpc.protocol.errors import ExecFailed, SettingInvalid

WORKSPACE = "/home/dev/workspace"
MAX_COMMAND = (128 << 10) - 1
"""Longest single argument that Linux takes, in bytes; the shell gets the whole line as one."""
MAX_PRELUDE = 64 << 10
"""What a shell's own start-up files may print before our word."""
SIGNALS = re.compile(r"(?:SIG)?([A-Z0-9][A-Z0-9+-]{0,15})")


@frozen
class Remote:
    """A command line for the guest's shell."""

    line: bytes
    nonce: bytes
    """Begins the word that says that the program is about to run."""


def remote(
    argv: Sequence[str],
    *,
    folder: str | None,
    environment: Mapping[str, str] | None,
    empty_input: bool,
) -> Remote:
    """The command line that becomes `argv`.

    Raises:
        SettingInvalid: there is no program, or something that no program can be given.
        ExecFailed: it is longer than Linux takes.
    """
    if not argv:
        raise SettingInvalid("The command is empty.", hint="argv needs at least the program.")
    environment = environment or {}
    texts = [*argv, folder or "", *environment, *environment.values()]
    if any("\0" in text for text in texts):
        raise SettingInvalid("The command, its folder or a variable has a NUL byte in it.")
    if wrong := [key for key in environment if not key or "=" in key]:
        raise SettingInvalid(f"No name for a variable: {wrong[0]!r}.")
    nonce = secrets.token_hex(8)
    folder = folder or WORKSPACE
    # `cd -` and `cd -P` mean something else.
    place = folder if folder.startswith("/") else f"./{folder}"
    words = list(argv)
    if environment:
        if "=" in words[0]:
            # env would take the program for one more variable.
            words = ["sh", "-c", 'exec "$@"', "sh", *words]
        words = ["env", "--", *(f"{key}={value}" for key, value in environment.items()), *words]
    line = os.fsencode(
        f"cd {shlex.quote(place)} && printf '%s.%s;' {nonce} \"$$\" >&2 && "
        f"exec -- {shlex.join(words)}" + (" </dev/null" if empty_input else "")
    )
    if len(line) > MAX_COMMAND:
        raise ExecFailed(
            f"The command line has {len(line)} bytes, {MAX_COMMAND} is the limit.",
            hint="Hand large arguments over in a file or by standard input.",
        )
    return Remote(line, nonce.encode())


def kill(group: int, signal: str) -> bytes:
    """The command line that signals a process group that sshd could not: root's, or leaderless.

    Raises:
        SettingInvalid: not the name of a signal.
    """
    words = f"kill -{signal_name(signal)} -- -{group}"
    return f"{words} 2>/dev/null || sudo -n {words}".encode()


def sweep(session: int) -> bytes:
    """The command line that leaves nothing of a session, also not what runs as root."""
    words = f"pkill -KILL --session {session}"
    return f"{words}; ! pgrep --session {session} >/dev/null || sudo -n {words}".encode()


def signal_name(name: str) -> str:
    """A signal's name without SIG.

    Raises:
        SettingInvalid: it cannot be one.
    """
    if not (match := SIGNALS.fullmatch(name)):
        raise SettingInvalid(f"No name for a signal: {name!r}.", hint="Such as INT, TERM, KILL.")
    return match[1]


@define
class Prelude:
    """Takes our word out of a stream of output."""

    nonce: bytes
    pid: int | None = None
    """The process, and its session; known once the word has come."""
    held: bytearray = field(factory=bytearray)
    """What came before it; the reason, where it never comes."""

    def feed(self, data: bytes) -> bytes:
        """The part of `data`, and of what was held back, that is output."""
        if self.pid is not None:
            return data
        self.held += data
        match = re.search(re.escape(self.nonce) + rb"\.(\d{1,10});", self.held)
        if match:
            self.pid = int(match[1])
            return bytes(self.held[: match.start()] + self.held[match.end() :])
        if len(self.held) <= MAX_PRELUDE:
            return b""
        whole, self.held = bytes(self.held), self.held[-64:]
        return whole[: -len(self.held)]
