"""What a virtual machine and an image build look like from outside, without either."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sandbox_rpc.host import files, locks, names
from sandbox_rpc.host.paths import Layout


class FakeSandbox:
    """A sandbox as its files and locks tell: the test holds what QEMU and the supervisor would."""

    def __init__(self, base: Path, name: str) -> None:
        self.layout = Layout(base)
        self.name = name
        self.workspace = base / "work" / name
        self.workspace.mkdir(parents=True)
        self.record = names.allot(self.layout, str(self.workspace), name)
        home = self.layout.home(name)
        self.locks = [locks.acquire(path) for path in (home.vm_lock, home.supervisor_lock)]
        assert None not in self.locks
        self.room = self.layout.room(name)
        self.room.qemu.mkdir(parents=True)
        self.log = self.room.console_log.open("ab", buffering=0)
        """Held open for writing, as QEMU does."""
        self.change(state="running", revision=1)

    def change(self, **fields: Any) -> None:
        """Replace the public value, as the supervisor does."""
        value = {
            "name": self.name,
            "workspace": str(self.workspace),
            "consoleLog": str(self.room.console_log),
            "imageDigest": "sha256:" + "0" * 64,
            **fields,
        }
        files.replace(self.room.state, json.dumps(value))

    def end(self) -> None:
        """Let go of everything, as the kernel does for a dead process."""
        self.log.close()
        for lock in self.locks:
            if lock is not None:
                os.close(lock)
        self.locks = []


BUILD = """\
#!/bin/sh
echo $$ >"$FAKE/pid"
echo "I: automatically chosen mode: root"
echo "0 upgraded, 4 newly installed, 0 to remove"
echo "$FAKE_SAY"
[ -z "$FAKE_STATUS" ] || exit "$FAKE_STATUS"
# A child that does not see the signal by itself.
sleep 600 &
echo $! >"$FAKE/child"
trap 'rm "$FAKE/pid"; exit 143' TERM
echo "Get:1 somewhere trixie/main amd64 one 1.0 [10 kB]"
wait
"""
TOOL = "#!/bin/sh\nexit 1\n"


class FakeBuild:
    """Programs that an image build finds before the real ones: a long one that can be watched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        # apt-get and apt-config too: which mirror this host has is not the question.
        for name in ("mke2fs", "qemu-img", "apt-get", "apt-config", "newuidmap"):
            self._program(name, TOOL)
        self._program("mmdebstrap", BUILD)

    def environment(self, *, say: str = "", status: str = "") -> dict[str, str]:
        """What the service is to be started with."""
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FAKE": str(self.folder),
            "FAKE_SAY": say,
            "FAKE_STATUS": status,
        }

    @property
    def was_undone(self) -> bool:
        """Whether the program was asked to end and all it had started has ended too."""
        child = int((self.folder / "child").read_text())
        return not (self.folder / "pid").exists() and not is_running(child)

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
