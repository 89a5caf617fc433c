"""Completion scripts: they parse, and a real bash completes with them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest
import shtab

from sandbox_rpc.cli import completion
from sandbox_rpc.cli.commands import COMMANDS
from sandbox_rpc.cli.main import main

LIMIT_S = 30


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command in script


def test_only_shells_that_the_library_knows_are_offered() -> None:
    assert set(completion.SHELLS) <= set(shtab.SUPPORTED_SHELLS)


def test_bash_can_parse_its_script(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(shtab.complete(completion.whole_parser(), "bash"))
    subprocess.run(["bash", "-n", path], check=True)


class Terminal:
    """An interactive bash that has the completion script."""

    def __init__(self, folder: Path) -> None:
        script = folder / "completion"
        script.write_text(shtab.complete(completion.whole_parser(), "bash"))
        rc = folder / "rc"
        rc.write_text(
            f"source {script}\nbind 'set show-all-if-ambiguous on'\n"
            "bind 'set enable-bracketed-paste off'\nPS1='READY> '\n"
        )
        self._master, slave = pty.openpty()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--rcfile", str(rc), "-i"],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"},
        )  # fmt: skip
        os.close(slave)
        self.until("READY> ")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def until(self, *wanted: str) -> str:
        """What the screen shows, once it shows all of this."""
        seen = ""
        end = time.monotonic() + LIMIT_S
        while not all(word in seen for word in wanted):
            readable, _, _ = select.select([self._master], [], [], end - time.monotonic())
            assert readable, f"{wanted} did not appear in {seen!r}"
            seen += os.read(self._master, 4096).decode(errors="replace")
        return seen

    def close(self) -> None:
        """End bash."""
        self._bash.kill()
        self._bash.wait()
        os.close(self._master)


def test_bash_completes_commands(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.type("sandbox st\t")
        seen = terminal.until("start", "stop", "status")
        assert "list" not in seen
        terminal.type("\x15sandbox do\t")
        terminal.until("sandbox doctor ")
        terminal.type("\x15sandbox start --mem\t")
        terminal.until("sandbox start --memory")
        terminal.type("\x15sandbox image re\t")
        terminal.until("sandbox image remove")
        terminal.type("\x15sandbox port cl\t")
        terminal.until("sandbox port close")
        terminal.type("\x15sandbox start --accelerator k\t")
        terminal.until("--accelerator kvm")
    finally:
        terminal.close()
