"""What becomes of a command: words, errors, interrupts, exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sandbox_rpc.cli import run
from sandbox_rpc.protocol.errors import (
    ERRORS,
    ImageNotFound,
    QemuFailed,
    SandboxNotFound,
    WorkspaceRefused,
)


def module_that(
    act: Callable[[argparse.Namespace], int], *flags: str
) -> types.ModuleType:  # a command's module
    """A command that does this."""
    module = types.ModuleType("a_command")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?")
        for flag in flags:
            parser.add_argument(flag, action="store_true")

    module.__dict__.update(add_arguments=add_arguments, run=act)
    return module


def failing(error: BaseException) -> Callable[[argparse.Namespace], int]:
    """An action that raises."""

    def act(options: argparse.Namespace) -> int:
        raise error

    return act


def test_words_after_two_dashes_are_the_guests() -> None:
    seen: list[argparse.Namespace] = []

    def act(options: argparse.Namespace) -> int:
        seen.append(options)
        return 7

    module = module_that(act)
    assert run.command(module, "up", ["f", "--", "make", "--", "-x"]) == 7
    assert run.command(module, "up", []) == 7
    assert run.command(module, "up", ["--"]) == 7
    assert [(one.folder, one.command) for one in seen] == [
        ("f", ["make", "--", "-x"]),
        (None, None),
        (None, []),
    ]


def test_unknown_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.command(module_that(failing(AssertionError())), "start", ["--mem", "4G"])
    assert ended.value.code == 2
    assert "usage: sandbox start" in capsys.readouterr().err


def test_errors_are_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    error = WorkspaceRefused("There is no folder x.", hint="Check the path.")
    assert run.command(module_that(failing(error)), "start", []) == 11
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: There is no folder x.\nhint: Check the path.\n"


def test_an_error_brings_the_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    error = QemuFailed(
        "QEMU ended.",
        hint="Look.",
        qemuLog="qemu: no",
        console="\n".join(f"line {number}" for number in range(40)),
        log="/somewhere/console.log",
    )
    assert run.complain(error, as_json=False) == 11
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "error: QEMU ended.",
        "QEMU's last words:",
        "  | qemu: no",
        "End of the console:",
    ]
    assert lines[4:19] == [f"  | line {number}" for number in range(25, 40)]
    assert lines[19:] == ["log: /somewhere/console.log", "hint: Look."]


def test_errors_are_printed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    error = SandboxNotFound("There is no sandbox x.", name="x")
    module = module_that(failing(error), "--json")
    assert run.command(module, "status", ["--json"]) == 11
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) == {
        "code": 1101,
        "message": "There is no sandbox x.",
        "data": {"kind": "sandboxNotFound", "name": "x", "hint": error.hint},
    }


def test_exit_statuses_are_the_blocks_of_the_codes() -> None:
    for error in ERRORS.values():
        assert error("x").exit_status == error.code // 100
        assert 10 <= error("x").exit_status <= 15
    assert ImageNotFound("x").exit_status == 12


def test_a_fault_of_ours_is_confessed_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run.command(module_that(failing(ZeroDivisionError("oh"))), "list", []) == 70
    printed = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in printed
    assert "Traceback" not in printed
    (log,) = tmp_path.iterdir()
    assert str(log) in printed
    assert "Traceback" in log.read_text()


def test_an_interrupt_is_a_status() -> None:
    assert run.command(module_that(failing(KeyboardInterrupt())), "start", []) == 130


def test_a_reader_that_leaves_is_no_error() -> None:
    # In a process of its own: it gives its stdout away.
    script = (
        "import sys, types\nfrom sandbox_rpc.cli import run\n"
        "m = types.ModuleType('m'); m.add_arguments = lambda p: None\n"
        "def act(o):\n    print('x' * 1000000)\n    return 0\n"
        "m.run = act\nsys.exit(run.command(m, 'list', []))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == 128 + signal.SIGPIPE


def test_work_returns_what_the_verb_returns() -> None:
    async def verb(number: int, *, cancel: anyio.Event, more: int) -> int:
        assert not cancel.is_set()
        return number + more

    assert run.work(verb, 1, more=2) == 3


def test_work_raises_what_the_verb_raises() -> None:
    async def verb(*, cancel: anyio.Event) -> None:
        async with anyio.create_task_group():
            raise SandboxNotFound("no")

    with pytest.raises(SandboxNotFound):
        run.work(verb)


def test_the_first_interrupt_asks_the_verb_to_undo_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    undone: list[bool] = []

    async def verb(*, cancel: anyio.Event) -> None:
        await interrupt()
        await cancel.wait()
        undone.append(True)
        raise run_cancelled()

    with pytest.raises(KeyboardInterrupt):
        run.work(verb)
    assert undone == [True]
    assert "cleaning up" in capsys.readouterr().err


def test_the_second_interrupt_leaves_at_once() -> None:
    async def verb(*, cancel: anyio.Event) -> None:
        await interrupt()
        await cancel.wait()
        await interrupt()
        await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run.work(verb)


def test_what_cannot_be_undone_is_left_at_once() -> None:
    async def verb() -> None:
        await interrupt()
        await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run.work(verb, cancellable=False)


async def interrupt() -> None:
    """Press Ctrl-C, once `work` listens for it."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    os.kill(os.getpid(), signal.SIGINT)


def run_cancelled() -> Exception:
    """What a verb raises when it has undone itself."""
    from sandbox_rpc.supervisor.wire import RequestCancelled

    return RequestCancelled()
