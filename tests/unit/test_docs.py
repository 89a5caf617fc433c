"""The generated documents are those of the source."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from sandbox_rpc.config.setting import Kind
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.protocol.errors import ERRORS, kind_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_are_up_to_date(generate: ModuleType) -> None:
    lines = list(generate.drift())
    assert not lines, f"Repair: {generate.COMMAND}\n" + "\n".join(lines)


def test_links_lead_somewhere() -> None:
    """Those to files of the project, pictures too, in all that people read."""
    root = DOCS.parent
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = [root / name for name in listed.stdout.split("\0") if name]
    assert len(pages) > 30
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if ":" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_drift_is_seen(generate: ModuleType, tmp_path: Path) -> None:
    for name, page in generate.PAGES.items():
        (tmp_path / name).write_text(page())
    assert not list(generate.drift(tmp_path))
    written = (tmp_path / "settings.md").read_text()
    (tmp_path / "settings.md").write_text(written.replace("`--cpus N`", "`--cpu N`"))
    assert any("--cpu N" in line for line in generate.drift(tmp_path))
    (tmp_path / "settings.md").write_text(written)
    (tmp_path / "errors.md").unlink()
    assert any("1001" in line for line in generate.drift(tmp_path))


def test_check_fails_and_names_the_repair(
    generate: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    # What is written must not be the tree that the test stands in.
    for name in (generate.editor.MANIFEST, generate.editor.TABLE):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(generate.editor.ROOT / name, copy)
    monkeypatch.setattr(generate.editor, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    output = capsys.readouterr()
    assert "+# Settings" in output.out
    assert f"Repair: {generate.COMMAND}" in output.err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_every_setting_and_error_is_described(generate: ModuleType) -> None:
    page = generate.settings_page()
    for row in SETTINGS:
        assert f"| `{row.path[-1]}` | `{row.flag}" in page
        if row.kind is Kind.BOOL:
            assert f"`--no-{row.flag.removeprefix('--')}`" in page
    page = generate.errors_page()
    for code, error in ERRORS.items():
        assert f"| {code} | `{kind_of(error)}` | " in page
        assert generate.first_line(error)


def test_tables_are_whole(generate: ModuleType) -> None:
    """A stray bar in a cell would shift the columns."""
    for page in (generate.settings_page(), generate.errors_page()):
        columns = 0
        for line in page.splitlines():
            bars = line.replace("\\|", "").count("|") if line.startswith("|") else 0
            assert not (columns and bars) or bars == columns, line
            columns = bars


def test_the_example_is_toml(generate: ModuleType) -> None:
    example = generate.settings_page().split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(example) == {"memory": "4G", "workspace": {"read_only": True}}
