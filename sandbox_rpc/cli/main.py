"""`sandbox`: finds the command and imports only its module, so that --help costs nothing."""

from __future__ import annotations

import os
import signal
import sys

from sandbox_rpc.cli.commands import ALIASES, COMMANDS, DEFAULT, HIDDEN, module_of, usage
from sandbox_rpc.host import standard


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    standard.open_streams()
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


if __name__ == "__main__":
    sys.exit(main())
