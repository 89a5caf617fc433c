"""What a real guest leaves in the workspace for the host to run, and what it cannot touch there."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.vm.conftest import MakeHost, Running


@pytest.fixture(scope="module")
def left(make_host: MakeHost) -> Running:
    """A sandbox of a repository with settings of agents, some of it protected."""
    host = make_host("left")
    workspace = host.workspace("left")
    subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    for path, text in (
        ("sandbox.toml", 'memory = "2G"\n'), (".mcp.json", "{}"), ("Makefile", "all:\n"),
        (".claude/settings.json", "{}"), (".claude/notes.md", "mine"), ("keep/deep/file", "mine"),
    ):  # fmt: skip
        file = workspace / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (workspace / ".codex").mkdir()
    (workspace / ".codex" / "config.toml").symlink_to("/etc/passwd")
    host.give(workspace)
    value = host.start(workspace, "--protect", "sandbox.toml,.mcp.json,.claude/settings.json",
                       "--protect", "keep,.codex/config.toml")  # fmt: skip
    return Running(host, workspace, value)


def changes(sandbox: Running) -> list[dict[str, Any]]:
    """`sandbox changes`; its status tells whether something runs by itself."""
    done = sandbox.host.run("changes", sandbox.name, "--json", check=False)
    found: list[dict[str, Any]] = json.loads(done.out)["changes"]
    assert done.status == int(any(one["byItself"] for one in found))
    return found


def test_what_is_protected_stays_as_it_is(left: Running) -> None:
    """Whatever root in the guest does: write, replace, remove, rename it or a folder above it."""
    assert changes(left) == []
    assert "cannot be protected: it is a link" in repr(left.value["warnings"])
    for script in (
        "echo evil > sandbox.toml", "rm -f .mcp.json", "mv .mcp.json x",
        "touch x && mv x .mcp.json",
        "echo evil >> .claude/settings.json", "mv .claude .old", "rm -rf .claude/settings.json",
        "echo evil > keep/deep/file", "touch keep/new", "mv keep/deep keep/other", "mv keep x",
        "ln -f Makefile sandbox.toml", "chmod 777 sandbox.toml", "cp /bin/true .mcp.json",
        "mount -o remount,rw /home/dev/workspace && echo evil > sandbox.toml",
    ):  # fmt: skip
        done = left.sh(f"cd workspace && sudo sh -c '{script}' 2>&1", check=False)
        assert done.status != 0, script
    left.sh("rm -f workspace/x")
    assert (left.workspace / "sandbox.toml").read_text() == 'memory = "2G"\n'
    assert (left.workspace / "keep" / "deep" / "file").read_text() == "mine"
    assert (left.workspace / ".claude" / "settings.json").read_text() == "{}"
    # Beside it all is as ever, and the link shows the guest nothing of the host.
    left.sh("cd workspace && echo more >> .claude/notes.md && touch .claude/new && mkdir a")
    assert left.sh("cat workspace/.codex/config.toml").out == left.sh("cat /etc/passwd").out


def test_what_is_left_is_told(left: Running) -> None:
    """While it runs and at its end, by those who would run it."""
    left.sh(
        "cd workspace && git config core.fsmonitor 'touch /tmp/pwned' && echo x > .envrc"
        " && printf '#!/bin/sh\\n' > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit"
        " && mkdir -p .vscode && echo '{}' > .vscode/tasks.json && echo >> Makefile"
        " && ln -s ../../../etc out && ln -s Makefile inside && echo x > harmless && sync"
    )
    found = {one["path"]: one for one in changes(left)}
    assert set(found) == {
        ".git/config", ".envrc", ".git/hooks/pre-commit", ".vscode/tasks.json", "Makefile", "out",
    }  # fmt: skip
    assert "core.fsmonitor" in found[".git/config"]["why"]
    assert found["out"]["link"]
    assert not found["Makefile"]["byItself"]
    done = left.host.run("stop", left.name)
    assert done.out == f"{left.name} is stopped.\n"
    assert "sandbox changes" in done.err
    assert ".git/config" in done.err
    text = left.host.run("changes", left.name, check=False).out
    assert "git obeys core.fsmonitor = touch /tmp/pwned" in text
    assert "leads to ../../../etc" in text
