"""In the real extension host: what is contributed is there, and no folder changes a setting."""

from __future__ import annotations

import json
import urllib.parse
import zipfile
from pathlib import Path

from playwright.sync_api import BrowserContext

from tests.editor.conftest import NewEditor
from tests.vm.conftest import MakeHost

INSIDE = Path(__file__).parent / "inhost" / "index.js"
LIMIT_MS = 120_000


def test_in_the_extension_host(
    new_editor: NewEditor, make_host: MakeHost, context: BrowserContext, vsix: Path, tmp_path: Path
) -> None:
    """`run()` of inhost/index.js, as the editor's own test runner calls it."""
    host = make_host("inhost")
    workspace = host.workspace("inhost")
    (workspace / ".vscode").mkdir()
    (workspace / ".vscode" / "settings.json").write_text('{"kvmSandbox.memory": 4096}')
    with zipfile.ZipFile(vsix) as archive:
        archive.extractall(tmp_path)
    editor = new_editor(host, options=["--vscode-option", "enable-smoke-test-driver"])
    there = f"vscode-remote://127.0.0.1:{editor.port}"
    payload = [
        ["extensionDevelopmentPath", f"{there}{tmp_path}/extension"],
        ["extensionTestsPath", f"{there}{INSIDE}"],
    ]
    page = context.new_page()
    lines: list[str] = []
    codes: list[int] = []
    page.expose_function("codeAutomationLog", lambda *said: lines.append(json.dumps(said)))
    page.expose_function("codeAutomationExit", lambda code, *_: codes.append(code))
    query = f"&payload={urllib.parse.quote(json.dumps(payload))}"
    page.goto(editor.url(workspace) + query)
    for _ in range(LIMIT_MS // 100):
        if codes:
            break
        page.wait_for_timeout(100)
    page.close()
    assert codes == [0], "\n".join(lines)
