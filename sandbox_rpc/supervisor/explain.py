"""What the logs of a failed start say, put into its error before they go."""

from __future__ import annotations

from sandbox_rpc.console import hub
from sandbox_rpc.protocol.errors import QemuFailed, SandboxError
from sandbox_rpc.qemu.launch import last_words
from sandbox_rpc.supervisor.request import Place


def explain(place: Place, error: SandboxError) -> None:
    """Add QEMU's last words, the end of the console, and where the logs will be."""
    room, home = place.room, place.home
    if isinstance(error, QemuFailed):
        error.details.setdefault("qemuLog", last_words(room.qemu_log, 10))
    if room.console_log.exists():
        error.details.setdefault("console", hub.tail(room.console_log))
        error.details.setdefault("log", str(home.last / room.console_log.name))
    elif room.qemu_log.exists():
        error.details.setdefault("log", str(home.last / room.qemu_log.name))
