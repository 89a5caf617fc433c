"""Files that make a program of the host run something: the table, by name and place. Pure.

Two kinds. Some are obeyed by a tool that is only pointed at the folder: an editor that opens it, a
shell prompt that asks git for its state, an agent that starts in it. The others wait until somebody
builds, tests or installs. Sources: the documentation of the tools; research on escapes from agents'
sandboxes by what they leave behind.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from attrs import frozen


@frozen
class Executed:
    """One row."""

    pattern: str
    """Path below any folder of the workspace; `*` within a name; a slash at the end: all of it."""
    why: str
    """Who runs it, and when."""
    by_itself: bool = True
    """Whether nobody needs to ask for it."""


TABLE: tuple[Executed, ...] = (
    Executed(".vscode/tasks.json", "VS Code runs tasks when the folder is opened"),
    Executed(".vscode/settings.json", "VS Code takes programs and their arguments from it"),
    Executed(".vscode/launch.json", "VS Code starts what it says", by_itself=False),
    Executed(".vscode/mcp.json", "VS Code starts the servers in it"),
    Executed(".vscode/extensions.json", "VS Code offers to install extensions"),
    Executed("*.code-workspace", "VS Code takes settings and tasks from it"),
    Executed(".devcontainer/", "editors run its commands, some on the host"),
    Executed(".devcontainer.json", "editors run its commands, some on the host"),
    Executed(".idea/", "JetBrains editors run startup tasks, watchers and interpreters from it"),
    Executed(".fleet/", "Fleet runs what it says"),
    Executed(".zed/", "Zed takes programs and tasks from it"),
    Executed(".helix/", "Helix takes programs from it"),
    Executed(".nvim.lua", "Neovim runs it with `exrc`"),
    Executed(".nvimrc", "Neovim runs it with `exrc`"),
    Executed(".exrc", "vi runs it with `exrc`"),
    Executed(".vimrc", "Vim runs it with `exrc`"),
    Executed(".lvimrc", "a plug-in of Vim runs it"),
    Executed(".dir-locals.el", "Emacs evaluates what is in it"),
    Executed("*.sublime-project", "Sublime Text takes build systems from it"),
    Executed(".envrc", "direnv runs it in your shell"),
    Executed(".autoenv", "autoenv runs it in your shell"),
    Executed(".mise.toml", "mise runs its hooks in your shell"),
    Executed("mise.toml", "mise runs its hooks in your shell"),
    Executed(".mise/", "mise runs its hooks in your shell"),
    Executed(".tool-versions", "asdf and mise choose programs by it"),
    Executed(".claude/settings.json", "Claude Code runs its hooks and obeys its permissions"),
    Executed(".claude/settings.local.json", "Claude Code runs its hooks and obeys its permissions"),
    Executed(".claude/hooks/", "Claude Code runs them"),
    Executed(".claude/commands/", "Claude Code obeys them"),
    Executed(".claude/agents/", "Claude Code obeys them"),
    Executed(".claude/skills/", "Claude Code obeys and runs them"),
    Executed("CLAUDE.md", "Claude Code obeys it"),
    Executed("CLAUDE.local.md", "Claude Code obeys it"),
    Executed("AGENTS.md", "coding agents obey it"),
    Executed("GEMINI.md", "Gemini obeys it"),
    Executed(".mcp.json", "coding agents start the servers in it"),
    Executed(".cursor/", "Cursor starts its servers and runs its hooks"),
    Executed(".cursorrules", "Cursor obeys it"),
    Executed(".codex/", "Codex starts its servers and obeys its permissions"),
    Executed(".gemini/", "Gemini starts its servers and runs its hooks"),
    Executed(".windsurf/", "Windsurf runs its hooks"),
    Executed(".kiro/", "Kiro runs its hooks"),
    Executed(".continue/", "Continue starts its servers"),
    Executed(".amazonq/", "Amazon Q starts its servers"),
    Executed(".roo/", "Roo Code starts its servers"),
    Executed(".aider.conf.yml", "aider runs the commands in it"),
    Executed("opencode.json", "opencode starts its servers"),
    Executed(".github/copilot-instructions.md", "Copilot obeys it"),
    Executed("sandbox.toml", "sandbox reads it at the next start"),
    Executed(".gitmodules", "git fetches what it says", by_itself=False),
    Executed(".gdbinit", "gdb runs it"),
    Executed(".lldbinit", "lldb runs it"),
    Executed(".husky/", "git runs them as hooks"),
    Executed("lefthook.yml", "git runs it by its hooks"),
    Executed(".lefthook.yml", "git runs it by its hooks"),
    Executed(".pre-commit-config.yaml", "git runs it by its hooks"),
    Executed("package.json", "npm runs its scripts", by_itself=False),
    Executed(".npmrc", "npm takes programs and registries from it", by_itself=False),
    Executed(".yarnrc.yml", "yarn runs the program it names", by_itself=False),
    Executed(".yarn/releases/", "yarn is run from there", by_itself=False),
    Executed(".pnp.cjs", "node runs it", by_itself=False),
    Executed(".pnpmfile.cjs", "pnpm runs it", by_itself=False),
    Executed("Makefile", "make runs it", by_itself=False),
    Executed("makefile", "make runs it", by_itself=False),
    Executed("GNUmakefile", "make runs it", by_itself=False),
    Executed("justfile", "just runs it", by_itself=False),
    Executed("Taskfile.yml", "task runs it", by_itself=False),
    Executed("CMakeLists.txt", "cmake runs it; many editors by themselves"),
    Executed("setup.py", "pip runs it", by_itself=False),
    Executed("conftest.py", "pytest runs it; many editors by themselves"),
    Executed("sitecustomize.py", "Python runs it", by_itself=False),
    Executed("pyproject.toml", "pip and other tools take programs from it", by_itself=False),
    Executed("tox.ini", "tox runs it", by_itself=False),
    Executed("noxfile.py", "nox runs it", by_itself=False),
    Executed("pyvenv.cfg", "a virtual environment: editors run its Python by themselves"),
    Executed("build.rs", "cargo runs it; rust-analyzer by itself"),
    Executed(".cargo/config.toml", "cargo takes programs from it; rust-analyzer by itself"),
    Executed(".cargo/config", "cargo takes programs from it; rust-analyzer by itself"),
    Executed("rust-toolchain.toml", "rustup chooses programs by it; rust-analyzer by itself"),
    Executed("gradlew", "Gradle is run by it; editors do so by themselves"),
    Executed("gradle/wrapper/", "Gradle is fetched by it; editors do so by themselves"),
    Executed("*.gradle", "Gradle runs it; editors do so by themselves"),
    Executed("*.gradle.kts", "Gradle runs it; editors do so by themselves"),
    Executed("mvnw", "Maven is run by it", by_itself=False),
    Executed(".mvn/", "Maven takes extensions from it; editors do so by themselves"),
    Executed("Rakefile", "rake runs it", by_itself=False),
    Executed("Gemfile", "bundler runs it; editors do so by themselves"),
    Executed(".irbrc", "irb runs it"),
    Executed(".pryrc", "pry runs it"),
    Executed(".Rprofile", "R runs it when it starts in the folder"),
    Executed(".bazelrc", "Bazel takes options from it", by_itself=False),
    Executed("Vagrantfile", "Vagrant runs it", by_itself=False),
    Executed(".gitlab-ci-local/", "gitlab-ci-local runs it", by_itself=False),
)
"""In the order in which they are told."""
NOT_ENTERED = frozenset(
    ("node_modules", ".venv", "venv", "__pycache__", ".tox", ".mypy_cache", "target", ".gradle")
)
"""Folders full of what tools make: their content is run by nobody but who runs the project."""
VENVS = frozenset((".venv", "venv"))


def _by_last() -> tuple[dict[str, list[Executed]], list[Executed], list[Executed]]:
    exact: dict[str, list[Executed]] = {}
    wild, folders = [], []
    for row in TABLE:
        if row.pattern.endswith("/"):
            folders.append(row)
        elif "*" in row.pattern:
            wild.append(row)
        else:
            exact.setdefault(row.pattern.rpartition("/")[2], []).append(row)
    return exact, wild, folders


_EXACT, _WILD, _FOLDERS = _by_last()
_FIRST = {row.pattern.rstrip("/").partition("/")[0] for row in _FOLDERS}
FOLDER_NAMES = frozenset(
    part for row in TABLE for part in row.pattern.split("/")[: -1 if "/" in row.pattern else 0]
)
"""Folders in which something stands that is obeyed."""


def match(path: str) -> Executed | None:
    """The row of a file's path, relative to the workspace."""
    parts = path.split("/")
    name = parts[-1]
    for row in _EXACT.get(name, ()):
        if path == row.pattern or path.endswith(f"/{row.pattern}"):
            return row
    for row in _WILD:
        if fnmatchcase(name, row.pattern):
            return row
    if not _FIRST.isdisjoint(parts[:-1]):
        for row in _FOLDERS:
            if f"/{row.pattern}" in f"/{path}":
                return row
    return None


_SECRETLY = re.compile(
    r"^(core\.(fsmonitor|hookspath|sshcommand|editor|pager|askpass|gitproxy|alternaterefscommand|"
    r"attributesfile|worktree)|alias\..*|filter\..*\.(clean|smudge|process)|"
    r"diff\.(external|.*\.(command|textconv))|merge\..*\.driver|(sequence\.)?editor|pager\..*|"
    r"credential\.(.*\.)?helper|gpg\.(.*\.)?program|gpg\.ssh\.defaultkeycommand|"
    r"include\.path|includeif\..*\.path|interactive\.difffilter|(man|browser|difftool|mergetool)\."
    r".*\.(cmd|path)|protocol\.(.*\.)?allow|remote\..*\.(uploadpack|receivepack|vcs|proxy)|"
    r"submodule\..*\.update|trailer\..*\.(command|cmd)|uploadpack\.packobjectshook|"
    r"url\..*\.(insteadof|pushinsteadof)|ssh\.variant|init\.templatedir|safe\..*|"
    r"sendemail\..*|imap\..*|tar\..*\.command|web\.browser|instaweb\..*|extensions\.worktreeconfig)$"
)


def runs_something(key: str) -> bool:
    """Whether git runs, or reads more settings from, what a key of its configuration says."""
    return bool(_SECRETLY.match(key.lower()))
