"""What a guest left for the host to run; with the real git, whose files these are."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_rpc.workspace import executed, gitconfig
from sandbox_rpc.workspace.scan import Findings, leaves, remember, scan


def git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", "-C", str(folder), *words], env=environment, check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip


class Life:
    """A workspace before and after a guest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        git(folder, "init", "-q")
        (folder / "Makefile").write_text("all:\n")
        (folder / ".vscode").mkdir()
        (folder / ".vscode" / "tasks.json").write_text("{}")
        (folder / "package.json").write_text("{}")
        self.start()

    def start(self) -> None:
        """From here on it is the guest's."""
        time.sleep(0.02)  # more than a tick of the kernel's coarse clock
        self.before = remember(str(self.folder))
        self.since = time.time_ns()
        time.sleep(0.02)

    def write(self, path: str, text: str = "x") -> None:
        """Write a file as a guest does."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def scan(self) -> Findings:
        """What there is now."""
        return scan(str(self.folder), self.since, self.before)

    def paths(self) -> list[str]:
        """The paths of it."""
        return [one.path for one in self.scan().found]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """A repository with some files."""
    return Life(tmp_path / "work")


def test_nothing_was_left(life: Life) -> None:
    life.write("src/main.c")
    life.write("README.md")
    git(life.folder, "config", "branch.main.remote", "origin")
    git(life.folder, "add", "-A")
    git(life.folder, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x")
    assert life.scan() == Findings([], True)


@pytest.mark.parametrize(
    ("path", "by_itself"),
    [
        (".vscode/tasks.json", True), ("sub/.vscode/settings.json", True), (".envrc", True),
        (".git/hooks/pre-commit", True), (".idea/workspace.xml", True), ("a/b/CLAUDE.md", True),
        (".devcontainer/devcontainer.json", True), (".claude/hooks/x/y.sh", True),
        ("x.code-workspace", True), ("Makefile", False), ("package.json", False),
        (".cargo/config.toml", True), (".husky/pre-push", True), ("sandbox.toml", True),
        (".git/info/attributes", True), (".cursor/mcp.json", True), ("app/build.gradle", True),
        (".git/modules/a/b/hooks/post-checkout", True), ("venv/pyvenv.cfg", True),
    ],
)  # fmt: skip
def test_what_the_host_would_run(life: Life, path: str, by_itself: bool) -> None:
    if path.startswith(".git/modules"):
        git(life.folder, "init", "-q", "--bare", ".git/modules/a/b")
        life.start()
    life.write(path)
    (one,) = life.scan().found
    assert (one.path, one.by_itself) == (path, by_itself)
    assert one.why


def test_settings_of_git_that_run_something(life: Life) -> None:
    git(life.folder, "config", "core.pager", "less")
    life.start()
    git(life.folder, "config", "core.fsmonitor", "touch /tmp/pwned")
    git(life.folder, "config", "Core.HooksPath", "evil")
    git(life.folder, "config", "alias.st", "!sh -c x")
    git(life.folder, "config", "filter.Weird Name.clean", "x")
    git(life.folder, "config", "user.name", "harmless")
    git(life.folder, "config", "include.path", "../evil")
    found = life.scan().found
    assert {one.path for one in found} == {".git/config"}
    said = " ".join(one.why for one in found)
    assert len(found) == 5
    for key in ("core.fsmonitor", "core.hookspath", "alias.st", "filter.Weird Name.clean",
                "include.path"):  # fmt: skip
        assert key in said
    assert "core.pager" not in said


def test_a_repository_by_another_name(life: Life) -> None:
    git(life.folder, "init", "-q", "--bare", "data/cache")
    git(life.folder / "data/cache", "config", "core.sshCommand", "evil")
    life.write("sub/.git", "gitdir: ../data/cache\n")
    found = {one.path: one.why for one in life.scan().found}
    assert "core.sshcommand" in found["data/cache/config"]
    assert "repository" in found["sub/.git"]


def test_links_that_lead_away(life: Life) -> None:
    (life.folder / "sub").mkdir()
    for name, target in (
        ("inside", "sub/x"), ("sub/up", "../Makefile"), ("out", "../../etc"),
        ("abs", "/etc/passwd"), ("sub/trick", "x/../../../y"), (".claude", "sub"),
    ):  # fmt: skip
        (life.folder / name).symlink_to(target)
    found = {one.path: one for one in life.scan().found}
    assert set(found) == {"out", "abs", "sub/trick", ".claude"}
    assert found["abs"].is_link
    assert "/etc/passwd" in found["abs"].why
    assert not found[".claude"].is_link


def test_a_folder_that_is_moved_into_its_place(life: Life) -> None:
    life.write("plain/pre-commit")
    life.write("other/tasks.json")
    life.start()
    assert life.paths() == []
    (life.folder / "plain").rename(life.folder / ".husky")
    (life.folder / ".git" / "hooks").rename(life.folder / ".git" / "old")
    life.write("hooks/x")
    assert ".husky/pre-commit" in life.paths()


def test_a_folder_that_gets_a_file_was_not_moved(life: Life) -> None:
    life.write(".vscode/settings.json")
    life.write(".git/hooks/post-merge")
    assert life.paths() == [".git/hooks/post-merge", ".vscode/settings.json"]


def test_content_that_is_the_same_is_no_news_for_git(life: Life) -> None:
    config = life.folder / ".git" / "config"
    config.write_text(config.read_text())
    assert life.paths() == []
    config.write_text("[core\nnonsense")
    assert life.paths() == [".git/config"]
    config.unlink()
    config.symlink_to("/etc/passwd")
    assert ".git/config" in life.paths()


def test_what_cannot_be_opened_or_ended_is_survived(life: Life) -> None:
    os.mkfifo(life.folder / ".envrc")
    deep = life.folder
    for _ in range(70):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (life.folder / "node_modules").mkdir()
    life.write("node_modules/x/package.json")
    result = life.scan()
    assert [one.path for one in result.found] == [".envrc"]
    assert not result.complete


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_none(text: str) -> None:
    found = gitconfig.running(text)
    assert found is None or all(map(executed.runs_something, found))


@given(st.lists(st.sampled_from([
    "[core]", "[user]", '[alias "x"]', "[a.b]", "\n", "\r\n", " ", "\t", "=", "fsmonitor", "name",
    "pager", "\\", "\\\n", '"', "#", ";", "x", "]", "[", "-", "\ufeff",
]), max_size=14).map("".join))  # fmt: skip
@settings(max_examples=150)
def test_git_sees_the_same(text: str) -> None:
    """The real git is asked, with the same text."""
    done = subprocess.run(
        ["git", "config", "--file", "-", "--list", "--name-only", "-z"],
        input=text.encode(), capture_output=True, check=False,
    )  # fmt: skip
    found = gitconfig.running(text)
    if done.returncode or found is None:
        return  # what is not understood is told as such
    seen = {name.decode() for name in done.stdout.split(b"\0") if name}
    assert set(found) == set(filter(executed.runs_something, seen))


@pytest.mark.parametrize(
    "text",
    [
        "[core] fsmonitor = x", "[CORE]\nFsMonitor=x", "[user]\nx = y # \\\n[core]\nfsmonitor = x",
        "\ufeff[core]\n\tfsmonitor", "[user] [core] fsmonitor = x",
        "# x \\\n[core] ; y\nfsmonitor = x", "[core]\nname = a \\\n[user]\nfsmonitor = x",
    ],
)  # fmt: skip
def test_one_setting_in_many_spellings(text: str, tmp_path: Path) -> None:
    """git itself agrees that it is set."""
    found = gitconfig.running(text)
    assert found is not None
    assert "core.fsmonitor" in found
    file = tmp_path / "config"
    file.write_text(text)
    assert "core.fsmonitor" in git(tmp_path, "config", "--file", str(file), "--list")


@given(st.text("./ab", max_size=12), st.text("./ab", min_size=1, max_size=12))
def test_leaving_is_decided_as_the_kernel_would(path: str, target: str) -> None:
    place = os.path.normpath(f"/w/{path}".replace("//", "/"))
    if not place.startswith("/w/") or "//" in path or "." in path.split("/") or ".." in path:
        return
    if path.startswith("/") or path.endswith("/"):
        return
    resolved = os.path.normpath(os.path.join(os.path.dirname(place), target))
    if not leaves(path, target):
        assert resolved == "/w" or resolved.startswith("/w/")


def test_no_git_of_ours_runs_on_the_host() -> None:
    """It would obey what the guest has written there."""
    package = Path(executed.__file__).parents[1]
    for path in package.rglob("*.py"):
        assert not re.search(r'[\[(]\s*"git"', path.read_text()), path
