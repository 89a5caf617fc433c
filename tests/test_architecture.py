"""The shape of the house: what may import what, how large a module is, what --help costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sandbox_rpc"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS: tuple[tuple[str, ...], ...] = (
    ("protocol",),
    ("config", "host"),
    ("images", "guest", "qemu", "network", "ssh", "console", "workspace"),
    ("supervisor",),
    ("sandboxes",),
    ("server",),
    ("cli",),
)
"""Rooms from the ground up: a room imports from floors below its own, and from itself."""
KNOWING = frozenset({"protocol", "config", "host"})
"""These rooms may know each other; on the floor above, siblings may not."""
OUTSIDE = {"__main__.py": frozenset({"server"}), "client.py": frozenset({"protocol"})}
"""What stands outside the rooms, and the rooms it may import from."""
MAX_LINES = 400
HEAVY = ("anyio", "asyncio", "attr", "attrs", "cattr", "cattrs", "shtab", "argparse", "pygls")


def room_of(path: Path) -> str:
    """The sub-package a module is in; empty for the package itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def floor_of(room: str) -> int:
    """The number of a room's floor."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imported(path: Path) -> Iterator[str]:
    """Full names of everything a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    """The rooms a module imports from."""
    names = (name.split(".") for name in imported(path))
    rooms = {parts[1] for parts in names if parts[0] == "sandbox_rpc" and len(parts) > 1}
    # `from sandbox_rpc import __version__` names no room.
    return {room for room in rooms if (PACKAGE / room).is_dir()}


def test_every_room_has_a_floor() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if not room:
        assert rooms_imported(path) <= OUTSIDE.get(path.name, frozenset())
        return
    for other in rooms_imported(path) - {room}:
        assert (
            floor_of(other) < floor_of(room)
            or {room, other} <= KNOWING
        ), f"{room} may not import {other}"  # fmt: skip


def test_the_import_rule_sees_what_it_should(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "def f():\n    from sandbox_rpc.cli import run\n    import sandbox_rpc.qemu.qmp\n"
    )
    assert rooms_imported(module) == {"cli", "qemu"}


def test_rooms_that_know_do_not_import_in_a_circle() -> None:
    edges = {
        (room_of(path), other)
        for path in MODULES
        if room_of(path) in KNOWING
        for other in rooms_imported(path) - {room_of(path)}
    }
    assert not {(a, b) for a, b in edges if (b, a) in edges}


def test_only_the_server_imports_pygls() -> None:
    users = {
        room_of(path)
        for path in MODULES
        if any(name.split(".")[0] in {"pygls", "lsprotocol"} for name in imported(path))
    }
    assert users <= {"server"}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_next_to_nothing(words: list[str]) -> None:
    script = (
        "import sys\nfrom sandbox_rpc.cli.main import main\n"
        f"status = main({words!r})\n"
        "import json; print(json.dumps(sorted(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "sandbox_rpc" in loaded
    assert not loaded & set(HEAVY)


def test_modules_are_small_and_named_by_what_they_are() -> None:
    sizes = {str(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: lines for path, lines in sizes.items() if lines > MAX_LINES}
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [path for path in MODULES if path.stem in vague]


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [node.name for node in public(tree) if not ast.get_docstring(node)] == []
