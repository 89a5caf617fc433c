"""Commands in the guest: arguments, status, streams."""

from __future__ import annotations

import hashlib
import json
import os

from tests.vm.conftest import Running

ARGUMENTS = [
    "", " ", "two words", "  ", "it's", '"quoted"', "new\nline", "tab\t", "$HOME", "$(id)", "`id`",
    "\\", "\\n", "*", "~", "!x", "#", "&", ";", "|", "-n", "--", "héllo wörld ✓ 日本", "%d %%",
]  # fmt: skip
DUMP = "import json, sys; print(json.dumps(sys.argv[1:]))"


def test_arguments_and_status_arrive_exactly(sandbox: Running) -> None:
    """Of `sandbox -- COMMAND`, in the folder of a running sandbox."""
    script = f"{DUMP}; sys.exit(42)"
    done = sandbox.host.run(
        "--", "python3", "-c", script, *ARGUMENTS, cwd=sandbox.workspace, check=False
    )
    assert json.loads(done.out) == ARGUMENTS
    assert done.status == 42
    assert done.err == ""


def test_exec_passes_environment_and_folder(sandbox: Running) -> None:
    """--env, --cwd, and again the exact arguments."""
    script = (
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))"
    )
    done = sandbox.host.run(
        "exec", sandbox.name, "--cwd", "/usr/share", "--env", "A=b c'\"$x", "--env", "EMPTY=",
        "--", "python3", "-c", script, *ARGUMENTS,
    )  # fmt: skip
    arguments, folder, environment = json.loads(done.out)
    assert arguments == ARGUMENTS
    assert folder == "/usr/share"
    assert environment["A"] == "b c'\"$x"
    assert environment["EMPTY"] == ""
    assert environment["SANDBOX_CONTAINER"] == sandbox.name
    assert "SSH_AUTH_SOCK" not in environment


def test_a_missing_folder_or_program_is_an_error(sandbox: Running) -> None:
    """With the statuses of a shell, and nothing run."""
    done = sandbox.host.run(
        "exec", sandbox.name, "--cwd", "/nowhere", "--", "echo", "ran", check=False
    )
    assert done.status != 0
    assert done.out == ""
    assert sandbox.run("no-such-program", check=False).status == 127


def test_streams_are_bytes(sandbox: Running) -> None:
    """1 MB in, 5 MB out, stderr apart, whatever the bytes."""
    sent = os.urandom(1_000_000)
    script = (
        "import hashlib, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "print(len(data), hashlib.sha256(data).hexdigest(), file=sys.stderr)\n"
        "for _ in range(5): sys.stdout.buffer.write(data)\n"
    )
    done = sandbox.run("python3", "-c", script, input=sent)
    assert done.err == f"1000000 {hashlib.sha256(sent).hexdigest()}\n"
    assert done.raw == sent * 5


def test_a_command_that_a_signal_ended(sandbox: Running) -> None:
    """Is a failure, as ssh has it."""
    assert sandbox.run("sh", "-c", "kill -KILL $$", check=False).status == 255
