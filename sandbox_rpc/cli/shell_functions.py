"""`sandbox shell-functions`: the seed's backend functions, for scripts that source them.

is_kvm_running NAME       status 0 where it runs
get_kvm_ssh_port NAME     prints the loopback port, or an empty line
get_kvm_ip NAME           prints localhost
start_kvm_sandbox NAME    starts NAME on the current folder; with PROXY=true behind its proxy
stop_kvm_sandbox NAME     stops it; fine where it does not run
backend_enter NAME        replaces the shell by an SSH session
"""

from __future__ import annotations

import argparse
import shlex

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.host.program import program

FUNCTIONS = """\
_sandbox() {{ SANDBOX_CACHE_BASE={base} {program} "$@"; }}
is_kvm_running() {{ _sandbox status "$1" >/dev/null 2>&1; }}
get_kvm_ssh_port() {{ cat {base}/kvm-vms/"$1"/ssh.port 2>/dev/null || echo ""; }}
get_kvm_ip() {{ echo localhost; }}
start_kvm_sandbox() {{
    if [ "${{PROXY:-false}}" = true ]; then
        _sandbox start --proxy --name "$1" .
    else
        _sandbox start --name "$1" .
    fi
}}
stop_kvm_sandbox() {{
    [ -e {base}/names/"$1"/record.json ] || return 0
    _sandbox stop "$1"
}}
backend_enter() {{
    if [ -z "$(get_kvm_ssh_port "$1")" ]; then
        echo "Error: Could not determine SSH port" >&2
        exit 1
    fi
    exec ssh -F {base}/names/"$1"/ssh_config "$1"
}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""
    parser.epilog = 'eval "$(sandbox shell-functions)"'


def run(options: argparse.Namespace) -> int:
    """Print the functions, for any POSIX shell."""
    base = shlex.quote(str(Layout.of_user().base))
    print(FUNCTIONS.format(base=base, program=shlex.join(program())), end="")
    return 0
