"""The Neovim plugin of docs/editors, in Debian's Neovim, on a real machine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.vm.conftest import MakeHost

ROOT = Path(__file__).resolve().parents[2]


def test_the_plugin(make_host: MakeHost) -> None:
    """Start, status line, terminal, stop; and no service is left when the editor goes."""
    host = make_host("nvim")
    workspace = host.workspace("nvim")
    service = str(Path(host.program[0]).with_name("sandbox-rpc"))
    done = host.call(
        [
            "nvim", "--headless", "-u", "NONE", "-c", f"let g:sandbox_rpc = '{service}'",
            "-c", f"luafile {ROOT / 'docs/editors/sandbox.lua'}",
            "-c", f"luafile {ROOT / 'tests/clients/plugin.lua'}", "-c", "cquit",
        ],
        cwd=workspace, check=False,
    )  # fmt: skip
    steps = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    assert [one["step"] for one in steps] == ["before", "started", "terminal", "stopped"], done.err
    assert done.status == 0, done.err
    assert steps[0]["line"] == ""
    assert steps[1]["line"] == "vm:running"
    assert steps[2]["shown"] == "in-23-sandbox-nvim"
