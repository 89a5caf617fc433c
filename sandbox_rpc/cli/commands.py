"""The commands there are, and what the help says of them; a module is imported when asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

COMMANDS = {
    "start": "start a folder's sandbox and return when it is ready",
    "enter": "open a shell in a running sandbox",
    "exec": "run a command in a running sandbox",
    "stop": "stop a sandbox; what is only in the guest is gone",
    "status": "show how a sandbox is",
    "list": "list sandboxes",
    "info": "show how to reach a sandbox: SSH, console, files",
    "port": "reach a port of a running sandbox from this host",
    "proxy": "allow and block hosts for a sandbox's proxy, and see where it went",
    "changes": "show what a sandbox left in its folder for this host to run",
    "code": "open a folder in its sandbox, in VS Code, Cursor or VSCodium",
    "idea": "open a folder in its sandbox, in JetBrains Gateway",
    "console": "attach to the serial console",
    "image": "build, list and remove images",
    "template": "list, build and remove the saved machines that sandboxes start from",
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
