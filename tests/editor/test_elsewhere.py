"""Where something is missing: what is said, and what the buttons do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext
from playwright.sync_api import TimeoutError as TimedOut

from tests.editor.conftest import NewEditor
from tests.editor.editor import ROWS, START_MS, Editor, Window
from tests.vm.conftest import MakeHost
from tests.vm.host import Host

Open = Callable[[Path | str | None], Window]


@pytest.fixture(scope="module")
def bare_host(make_host: MakeHost) -> Host:
    """A user who has not installed much."""
    return make_host("bare")


@pytest.fixture(scope="module")
def bare(new_editor: NewEditor, bare_host: Host) -> Editor:
    """Their editor: no QEMU where they say it is, and nothing that opens SSH windows."""
    return new_editor(bare_host, remote=False, kvmSandbox__qemu__binary="/opt/qemu/bin/qemu")


@pytest.fixture(scope="module")
def open_bare(bare: Editor, context: BrowserContext) -> Iterator[Open]:
    """Windows of it."""
    made: list[Window] = []

    def make(folder: Path | str | None) -> Window:
        made.append(Window.open(bare, context, folder))
        return made[-1]

    yield make
    for one in made:
        one.page.close()


def test_no_qemu(bare_host: Host, open_bare: Open) -> None:
    """The button types the command into a terminal, and does not run it."""
    window = open_bare(bare_host.workspace("no-qemu"))
    window.status.wait_for(timeout=60_000)
    window.palette("Open in KVM Sandbox")
    toast = window.toast("QEMU")
    window.wait_status("failed", 30_000)
    window.shot("no-qemu")
    window.press(toast, "Install QEMU…")
    shown = window.wait_terminal(r"apt-get install +qemu")
    assert "Reading package lists" not in shown


def test_the_doctor(bare_host: Host, open_bare: Open) -> None:
    """What this host has and lacks, as a document."""
    window = open_bare(bare_host.workspace("doctor"))
    window.status.wait_for(timeout=60_000)
    window.palette("KVM Sandbox: Doctor")
    lines = window.page.locator(".monaco-editor .view-lines", has_text="Sandboxes can be started")
    lines.wait_for(timeout=60_000)
    window.shot("doctor")


def test_no_python(new_editor: NewEditor, make_host: MakeHost, context: BrowserContext) -> None:
    """An interpreter that is none: the setting is named, and opened."""
    host = make_host("nopython")
    editor = new_editor(host, kvmSandbox__server__interpreter="/usr/bin/false")
    window = Window.open(editor, context, host.workspace("nopython"))
    window.status.wait_for(timeout=60_000)
    window.palette("Open in KVM Sandbox")
    toast = window.toast("kvmSandbox.server.interpreter is /usr/bin/false")
    window.press(toast, "Choose Interpreter…")
    window.page.locator(".settings-editor", has_text="Interpreter").wait_for(timeout=60_000)
    window.shot("settings")
    window.page.close()


def test_no_folder_asks_for_one(open_bare: Open) -> None:
    """Nothing is started on a guess, and the status bar has nothing to say."""
    window = open_bare(None)
    window.page.goto(f"{window.editor.url(None)}?ew=true")
    window.ready()
    window.palette("Open in KVM Sandbox")
    title = window.page.locator(".quick-input-title", has_text="Choose the folder")
    title.wait_for(timeout=60_000)
    assert window.status.count() == 0
    window.page.keyboard.press("Escape")


def test_several_folders_are_asked_about(bare_host: Host, open_bare: Open) -> None:
    """One is shared; it is said that the others are not."""
    folders = [bare_host.workspace(name) for name in ("first", "second")]
    file = bare_host.folder / "work" / "both.code-workspace"
    listed = [{"path": str(path)} for path in folders]
    file.write_text(json.dumps({"folders": listed}))
    window = open_bare(file)
    # This editor may show a workspace file without its folders, as its own explorer says: it begins
    # with a cache, and can miss that the file has been read since.
    shown = window.page.locator(".explorer-folders-view", has_text="second")
    for number in range(4):
        with suppress(TimedOut):
            shown.wait_for(timeout=15_000)
            break
        file.write_text(json.dumps({"folders": listed, "settings": {}}, indent=number))
        if number % 2:
            window.page.reload()
            window.ready()
    window.status.wait_for(timeout=60_000)
    window.palette("Open in KVM Sandbox")
    rows = window.page.locator(".quick-input-list .monaco-list-row")
    # Until then they are those of the palette.
    rows.filter(has_text="first").wait_for(timeout=60_000)
    assert [row.strip().split("/")[-1] for row in rows.all_inner_texts()] == ["first", "second"]
    window.shot("which-folder")
    rows.last.click()
    window.toast(r"shares .*second.*Not shared: .*first")


def test_without_a_provider_there_is_a_terminal(
    new_editor: NewEditor, make_host: MakeHost, context: BrowserContext
) -> None:
    """In the guest; and the user's settings are the machine's, a folder's are not."""
    host = make_host("terminal")
    workspace = host.workspace("terminal")
    (workspace / ".vscode").mkdir()
    (workspace / ".vscode" / "settings.json").write_text('{"kvmSandbox.network": "offline"}')
    editor = new_editor(host, remote=False, kvmSandbox__memory=1536)
    window = Window.open(editor, context, workspace)
    window.status.wait_for(timeout=60_000)
    window.palette("Open in KVM Sandbox")
    toast = window.toast("no extension for windows over SSH", START_MS)
    window.shot("no-provider")
    window.press(toast, "Open Terminal")
    window.page.locator(ROWS).wait_for(timeout=60_000)
    window.wait_terminal(r"dev@sandbox-terminal:~/workspace\$ *$")
    window.type_terminal("echo shell$((2 + 2))here; ls -A\n")
    window.wait_terminal(r"^shell4here\s+^\.vscode")
    value = host.json("status", "sandbox-terminal")
    assert (value["memoryMib"], value["network"]) == (1536, "open")
    assert not (host.home / ".ssh" / "config").exists()
    window.page.close()
    host.run("stop", "sandbox-terminal", "--force")
