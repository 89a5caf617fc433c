"""The serial console: many at once, filtered, logged since power-on."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from sandbox_rpc.host import process
from tests.vm.conftest import Running
from tests.vm.host import wait_for
from tests.vm.terminal import Terminal

PROMPT = rb"dev@sandbox-shared:[^\r\n]*\$ $"
LEAVE = b"\x1d"
# Clipboard, title, and the question that a terminal answers by typing.
BEYOND = r"printf '\033]52;c;Zm9v\007\033]0;mine\007\033[c\033[31mred%s\n' $((6*7))"


@pytest.fixture(autouse=True, scope="module")
def logged_in(sandbox: Running) -> None:
    """The shell on ttyS0 has prompted; a sandbox is ready without it."""
    log = Path(sandbox.value["consoleLog"])
    wait_for(lambda: b"dev@sandbox-shared:" in log.read_bytes(), "a prompt", seconds=120)


def socat(sandbox: Running) -> Terminal:
    """The seed's line."""
    path = sandbox.value["consoleSocket"]
    line = ["socat", "STDIO,raw,echo=0,escape=0x1d", f"UNIX-CONNECT:{path}"]
    return Terminal(sandbox.host, line)


def console(sandbox: Running, *words: str) -> Terminal:
    """`sandbox console`."""
    return Terminal(sandbox.host, [*sandbox.host.program, "console", sandbox.name, *words])


def prompt(terminal: Terminal) -> None:
    """An empty prompt, whatever somebody left there."""
    terminal.until_raw()
    terminal.type("\x15echo at-$((6*7))\r")
    terminal.expect(rb"\rat-42\r\n[\s\S]*" + PROMPT)


def test_socat_gives_devs_shell(sandbox: Running) -> None:
    """Logged in on ttyS0, with Ctrl+] to leave."""
    with socat(sandbox) as terminal:
        prompt(terminal)
        terminal.type("echo $(id -un):$(tty):$((6*7))\r")
        terminal.expect(rb"\rdev:/dev/ttyS0:42\r")
        terminal.type(LEAVE)
        assert terminal.wait() == 0


def test_sandbox_console(sandbox: Running) -> None:
    """Typing, line editing, Ctrl+C in the guest, Ctrl+] to leave; the terminal is as before."""
    with console(sandbox) as terminal:
        prompt(terminal)
        terminal.type("echo x\x7f$((6*7))\r")
        terminal.expect(rb"\r42\r\n")
        terminal.type("cat\r")
        # Until it answers, the shell may still have the terminal, and take the key for itself.
        terminal.expect(rb"\x1b\[\?2004l\r$")
        terminal.type("twice\r")
        terminal.expect(rb"twice\r\n[\s\S]*twice\r\n")
        terminal.type("\x03")
        terminal.expect(rb"twice\r\n[^\r]*\r\n[\s\S]*" + PROMPT)
        terminal.type("echo $((1+129))\r")
        terminal.expect(rb"\r130\r\n")
        terminal.type(LEAVE)
        assert terminal.wait() == 0
        assert b"Left the console." in terminal.shown
        assert terminal.is_cooked()


def test_all_read_and_all_write(sandbox: Running) -> None:
    """Three at once: what one types, all see, and so with the answer."""
    with socat(sandbox) as first, console(sandbox) as second, console(sandbox, "--raw") as third:
        everybody = (first, second, third)
        for terminal in (second, third):
            terminal.expect(b"leaves it")
        prompt(first)
        for number, writer in enumerate(everybody):
            writer.type(f"echo by-{number}-$((6*7))\r")
            for reader in everybody:
                reader.expect(b"\rby-%d-42\r" % number)
        first.type(LEAVE)
        first.wait()
        second.type("echo still-$((6*7))\r")
        third.expect(rb"\rstill-42\r")


@pytest.mark.parametrize("raw", [False, True])
def test_what_acts_beyond_the_screen_is_filtered(sandbox: Running, raw: bool) -> None:
    """Unless --raw: it could run commands in the user's name, on the host."""
    with console(sandbox, *(["--raw"] if raw else [])) as terminal:
        prompt(terminal)
        since = len(terminal.shown)
        terminal.type(f"{BEYOND}\r")
        terminal.expect(rb"red42", since=since)
        shown = terminal.shown[since:]
    assert (b"\x1b[31mred42" in shown) is True
    for sequence in (b"\x1b]52;c;Zm9v\x07", b"\x1b]0;mine\x07", b"\x1b[c"):
        assert (sequence in shown) is raw


def test_the_log_has_everything_since_power_on(sandbox: Running) -> None:
    """The system's first words, and what was printed while nobody looked."""
    log = Path(sandbox.value["consoleLog"])
    sandbox.sh("echo nobody-$((6*7))-looks | sudo -n tee /dev/ttyS0 >/dev/null")
    wait_for(lambda: b"nobody-42-looks" in log.read_bytes(), "the line in console.log")
    text = log.read_bytes()
    assert text.index(b"Debian GNU/Linux 13") < text.index(b"nobody-42-looks")
    assert re.search(rb"automatic login", text)


def test_who_attaches_sees_the_unfinished_line(sandbox: Running) -> None:
    """A prompt that was printed before they came."""
    with socat(sandbox) as terminal:
        prompt(terminal)
    with socat(sandbox) as terminal:
        terminal.expect(PROMPT)


def test_it_works_after_another_supervisor_took_over(sandbox: Running) -> None:
    """Clients of the dead one are told; nothing is missing from the log."""
    host = sandbox.host
    log = Path(sandbox.value["consoleLog"])
    before = host.supervisor_pid(sandbox.name)
    found = process.identify(before)
    assert found is not None
    with console(sandbox) as terminal:
        prompt(terminal)
        found.kill(signal.SIGKILL)
        terminal.expect(b"The console has ended")
        assert terminal.wait() == 0
    sandbox.sh("echo between-$((6*7)) | sudo -n tee /dev/ttyS0 >/dev/null")
    assert host.json("status", sandbox.name)["state"] == "running"
    assert host.supervisor_pid(sandbox.name) != before
    assert host.qemu_pid(sandbox.name) == sandbox.value["pid"]
    with socat(sandbox) as terminal:
        terminal.until_raw()
        terminal.type("\x15echo after-$((6*7))\r")
        terminal.expect(rb"\rafter-42\r")
    text = wait_for(
        lambda: (read := log.read_bytes()).count(b"\rafter-42") and read, "the line in console.log"
    )
    assert text.index(b"between-42") < text.index(b"\rafter-42")
