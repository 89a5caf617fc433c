"""What a shell makes of our command lines, and how our word is found in its output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.protocol.errors import ExecFailed, SettingInvalid
from sandbox_rpc.ssh import run
from sandbox_rpc.ssh.run import Prelude

ARGUMENTS = [
    "", " ", "two words", "it's", '"quoted"', "new\nline", "tab\t", "$HOME", "$(id)", "`id`", "\\",
    "\\n", "*", "~", "!x", "#", "&", ";", "|", "-n", "--", "a=b", "héllo 日本", "\udcff", "%d %%",
]  # fmt: skip
DUMP = (
    "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ),"
    " sys.stdin.read()]))"
)


def shell(
    argv: list[str], folder: Path | str, environment: dict[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[bytes], Prelude, bytes]:
    """Run what would be run in a guest; also our word, and standard error without it."""
    remote = run.remote(argv, folder=str(folder), environment=environment, empty_input=True)
    done = subprocess.run(["bash", "-c", remote.line], capture_output=True, input=b"never read")
    prelude = Prelude(remote.nonce)
    return done, prelude, prelude.feed(done.stderr)


@pytest.mark.parametrize("environment", [None, {"A": "x 'y' $z", "b.c": "", "D": "1\n2"}])
def test_program_gets_exactly_what_was_given(
    tmp_path: Path, environment: dict[str, str] | None
) -> None:
    done, prelude, rest = shell([sys.executable, "-c", DUMP, *ARGUMENTS], tmp_path, environment)
    arguments, folder, variables, read = json.loads(done.stdout)
    assert arguments == ARGUMENTS
    assert folder == str(tmp_path)
    assert read == ""
    assert {key: variables[key] for key in environment or {}} == (environment or {})
    assert prelude.pid is not None
    assert rest == b""


@pytest.mark.parametrize("name", ["a=b", "-x", "two words", "cd"])
@pytest.mark.parametrize("environment", [None, {"A": "1"}])
def test_any_name_is_a_program(
    tmp_path: Path, name: str, environment: dict[str, str] | None
) -> None:
    program = tmp_path / name
    program.write_text("#!/bin/sh\necho ran $1\n")
    program.chmod(0o755)
    done, _, _ = shell([f"./{name}", "on"], tmp_path, environment)
    assert done.stdout == b"ran on\n"


def test_status_is_the_programs(tmp_path: Path) -> None:
    done, prelude, rest = shell(["sh", "-c", "echo oh >&2; exit 7"], tmp_path)
    assert (done.returncode, rest) == (7, b"oh\n")
    assert prelude.pid is not None


def test_no_such_program_is_a_status_and_no_such_folder_no_begin(tmp_path: Path) -> None:
    done, prelude, rest = shell(["no-such-program"], tmp_path)
    assert (done.returncode, prelude.pid is None) == (127, False)
    assert b"not found" in rest
    done, prelude, rest = shell(["echo", "ran"], tmp_path / "none")
    assert (done.returncode, done.stdout, prelude.pid, rest) == (1, b"", None, b"")
    assert b"No such file" in prelude.held


@pytest.mark.parametrize("folder", ["-", "-P", "with 'quotes' $x", "*"])
def test_any_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    remote = run.remote(["pwd"], folder=folder, environment=None, empty_input=True)
    done = subprocess.run(["bash", "-c", remote.line], capture_output=True, cwd=tmp_path)
    assert done.stdout.decode() == f"{tmp_path / folder}\n"


@pytest.mark.parametrize(
    ("argv", "environment"),
    [([], {}), (["a\0b"], {}), (["a"], {"B": "\0"}), (["a"], {"": "x"}), (["a"], {"B=C": "x"})],
)
def test_what_no_program_can_be_given(argv: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(SettingInvalid):
        run.remote(argv, folder=None, environment=environment, empty_input=True)


def test_the_longest_line_and_one_longer(tmp_path: Path) -> None:
    spare = run.MAX_COMMAND - len(
        run.remote(["echo", "x"], folder=str(tmp_path), environment=None, empty_input=True).line
    )
    done, _, _ = shell(["echo", "x" * (spare + 1)], tmp_path)
    assert len(done.stdout) == spare + 2
    with pytest.raises(ExecFailed, match="limit"):
        shell(["echo", "x" * (spare + 2)], tmp_path)


def test_word_is_taken_out_wherever_it_is_cut() -> None:
    whole = b"motd\nabcd.42;out\n"
    for cut in range(len(whole) + 1):
        prelude = Prelude(b"abcd")
        assert prelude.feed(whole[:cut]) + prelude.feed(whole[cut:]) == b"motd\nout\n"
        assert prelude.pid == 42
        assert prelude.feed(b"abcd.7;") == b"abcd.7;"


def test_a_flood_before_the_word_is_not_kept() -> None:
    prelude, got = Prelude(b"abcd"), b""
    for _ in range(100):
        got += prelude.feed(b"x" * 5000)
        assert len(prelude.held) <= run.MAX_PRELUDE
    got += prelude.feed(b"abcd.42;y")
    assert (got, prelude.pid) == (b"x" * 500_000 + b"y", 42)


@pytest.mark.parametrize("name", ["", "INT; id", "int", "-9", "A" * 17])
def test_no_names_of_signals(name: str) -> None:
    with pytest.raises(SettingInvalid):
        run.signal_name(name)


def test_kill_reaches_a_group_and_sweep_a_session() -> None:
    for line in (lambda pid: run.kill(pid, "SIGKILL"), run.sweep):
        child = subprocess.Popen(
            ["bash", "-c", "sleep 1000 & echo; wait"], start_new_session=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout
        child.stdout.readline()
        subprocess.run(["bash", "-c", line(child.pid)], check=False)
        # The sleeper held the pipe.
        assert child.stdout.read() == b""
        assert child.wait() == -9
        child.stdout.close()
