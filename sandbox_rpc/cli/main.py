"""`sandbox`: finds the command and imports only its module, so that --help costs nothing."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from types import ModuleType

COMMANDS = {
    "start": "start a folder's sandbox and return when it is ready",
    "enter": "open a shell in a running sandbox",
    "exec": "run a command in a running sandbox",
    "stop": "stop a sandbox; what is only in the guest is gone",
    "status": "show how a sandbox is",
    "list": "list sandboxes",
    "info": "show how to reach a sandbox: SSH, console, files",
    "console": "attach to the serial console",
    "image": "build, list and remove images",
    "trust": "accept the settings that a folder brings along",
    "forget": "give up the name of a folder",
    "doctor": "check what this host has and lacks",
    "completion": "print a completion script for bash, zsh or tcsh",
    "shell-functions": "print shell functions for scripts that source them",
}
"""Commands and what they do, in the order of --help."""
HIDDEN = {"connect": "join stdin and stdout to a sandbox's SSH port"}
"""Commands for programs."""
ALIASES = {"ls": "list", "help": "--help"}
DEFAULT = "up"
"""What `sandbox` without a command means: start if needed, then enter."""

USAGE = """\
usage: sandbox [OPTIONS] [FOLDER] [-- COMMAND ...]
       sandbox COMMAND [...]

Open a project folder inside a disposable, strongly isolated virtual machine.
Without a command: start the sandbox of the current folder if it does not run, then open a
shell in it, or run what stands after -- and exit with its status.
"""


def module_of(command: str) -> ModuleType:
    """The module that implements a command."""
    return importlib.import_module(f"sandbox_rpc.cli.{command.replace('-', '_')}")


def usage() -> str:
    """What `sandbox --help` prints."""
    width = max(map(len, COMMANDS))
    rows = "".join(f"  {name:{width}}  {what}\n" for name, what in COMMANDS.items())
    more = "`sandbox COMMAND --help` shows its options, `sandbox start --help` all settings."
    return f"{USAGE}\ncommands:\n{rows}\n{more}\n"


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    _open_standard_streams()
    try:
        try:
            return _dispatch(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _dispatch(words: list[str]) -> int:
    while words and words[0] == "--kvm":  # the seed's choice of a backend; here the only one
        words = words[1:]
    first = ALIASES.get(words[0], words[0]) if words else ""
    if first in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if first in ("-V", "--version"):
        from sandbox_rpc import __version__

        print(f"sandbox {__version__}")
        return 0
    if first in COMMANDS or first in HIDDEN:
        command, rest = first, words[1:]
    else:
        command, rest = DEFAULT, words
    from sandbox_rpc.cli import run

    return run.command(module_of(command), command, rest)


def _open_standard_streams() -> None:
    """Where the caller has closed one, the first file we open would take its place."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.close(fd)
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


if __name__ == "__main__":
    sys.exit(main())
