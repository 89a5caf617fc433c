"""A day with one folder: opened, worked on in its remote window, watched, stopped, opened again.

Each test goes on where the one before it has left the windows.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define
from playwright.sync_api import BrowserContext, expect

from sandbox_rpc.host import locks, process
from sandbox_rpc.ssh import include
from tests.editor.editor import ROWS, START_MS, TOAST, Editor, Window
from tests.editor.provider import Provider
from tests.vm.host import Host, wait_for

NAME = "sandbox-My_app"
REMOTE_MS = 120_000
"""For a window whose server starts under emulation."""
RUNNING = r"^\s*Sandbox( \(emulated\))?$"
OFF = "Sandbox: off"


@define
class Story:
    """What the tests share."""

    workspace: Path
    window: Window
    remote: Window | None = None

    @property
    def inside(self) -> Window:
        """The remote window."""
        assert self.remote is not None, "the remote window did not open"
        return self.remote


@pytest.fixture(scope="module")
def story(person: Host, windows: Callable[[Path], Window]) -> Story:
    """A window on a folder with something in it."""
    workspace = person.workspace("My app")
    (workspace / "README.md").write_text("# My app\n\nRuns in its sandbox.\n")
    (workspace / "src").mkdir()
    (workspace / "src" / "main.py").write_text('print("hello from", __import__("socket"))\n')
    for path in (workspace / "README.md", workspace / "src", workspace / "src" / "main.py"):
        person.give(path)
    return Story(workspace, windows(workspace))


def services(person: Host) -> list[int]:
    """Processes of the service that this user's editor has started."""
    mine = os.fsencode(f"SANDBOX_CACHE_BASE={person.base}")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environ = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--stdio" in words and mine in environ:
            found.append(int(path.name))
    return found


def explorer(window: Window, name: str, timeout_ms: int = REMOTE_MS) -> None:
    """Wait until the explorer shows a file."""
    entry = window.page.locator(".explorer-folders-view .monaco-list-row", has_text=name)
    entry.first.wait_for(timeout=timeout_ms)


def reopened(context: BrowserContext, story: Story, act: Callable[[], None]) -> Window:
    """The window that opens when something is done."""
    with context.expect_page(timeout=REMOTE_MS) as caught:
        act()
    window = Window(story.window.editor, caught.value)
    window.ready()
    return window


def test_nothing_runs_before_it_is_needed(story: Story, person: Host, editor: Editor) -> None:
    """The status bar knows the state from files."""
    story.window.wait_status(OFF, 60_000)
    assert services(person) == []
    assert "starting" not in editor.extension_log()


def test_cancel_leaves_nothing(story: Story, person: Host) -> None:
    """In the middle of the boot that makes the template."""
    window = story.window
    window.palette("Open in KVM Sandbox")
    window.wait_status("starting: template")
    window.shot("start")
    window.press(window.toast("Starting sandbox"), "Cancel")
    window.toast("cancelled")
    window.wait_status(OFF)
    home, room = person.home_of(NAME), person.room_of(NAME)
    wait_for(lambda: not locks.is_held(home.vm_lock), "the end of QEMU")
    try:
        wait_for(lambda: not room.folder.exists(), "the end of the room")
    except AssertionError as error:
        left = sorted(map(str, room.folder.rglob("*")))
        log = person.home_of(NAME).supervisor_log.read_text()[-3000:]
        raise AssertionError(f"{error}: {left}\n{log}") from None


def test_the_folder_opens_in_a_window_of_its_machine(
    story: Story, context: BrowserContext, person: Host, provider: Provider
) -> None:
    """With progress, one question about the SSH configuration, and the server handed in."""
    window = story.window

    def act() -> None:
        window.palette("Open in KVM Sandbox")
        window.page.locator(".monaco-dialog-box").wait_for(timeout=START_MS)
        window.shot("question")
        said = window.dialog("Add the Line")
        assert str(person.layout.ssh_config) in said

    story.remote = reopened(context, story, act)
    explorer(story.inside, "README.md")
    assert provider.missing == 0
    config = include.config_file(person.home)
    assert config.read_text().count("Include") == 1
    window.wait_status(RUNNING)
    assert person.json("status", NAME)["state"] == "running"


def test_the_terminal_is_in_the_guest(story: Story) -> None:
    """By host name and by SSH; what it writes is on the host."""
    window = story.inside
    window.page.keyboard.press("Control+`")
    window.page.locator(ROWS).wait_for(timeout=REMOTE_MS)
    window.wait_terminal(r"\$ *$")
    window.type_terminal(
        "echo in $(hostname) as $(id -un), $PWD; echo $SSH_CONNECTION | cut -c-7\n"
    )
    shown = window.wait_terminal(r"^10\.0\.2")
    assert f"in {NAME.replace('_', '-')} as dev, /home/dev/workspace" in shown
    window.type_terminal("echo written in the guest > made.txt\n")
    made = story.workspace / "made.txt"
    wait_for(lambda: made.exists() and made.read_text(), "the file on the host")
    assert made.read_text() == "written in the guest\n"


def test_a_file_saved_there_is_in_the_host_folder(story: Story) -> None:
    """Through the editor itself."""
    window = story.inside
    window.page.bring_to_front()
    explorer(window, "README.md")
    window.page.locator(".explorer-folders-view .monaco-list-row", has_text="README.md").dblclick()
    window.page.locator(".monaco-editor .view-lines", has_text="Runs in its sandbox").wait_for(
        timeout=60_000
    )
    window.page.keyboard.press("Control+End")
    window.type("Saved from the window.\n")
    window.page.keyboard.press("Control+s")
    readme = story.workspace / "README.md"
    wait_for(lambda: "Saved from the window." in readme.read_text(), "the saved file", seconds=60)
    window.shot("window")


def test_the_tooltip_and_the_menu(story: Story) -> None:
    """What one wants to know of a machine, and what can be done."""
    window = story.window
    window.status.hover()
    tip = window.page.locator(".monaco-hover", has_text=NAME).first
    tip.wait_for(timeout=30_000)
    window.shot("status")
    shown = tip.inner_text()
    for word in ("Folder", "Accelerator", "Network", "Memory", "Processors", "Up", "SSH"):
        assert word in shown, shown
    window.status.click()
    rows = window.page.locator(".quick-input-list .monaco-list-row")
    rows.first.wait_for()
    listed = rows.all_inner_texts()
    for entry in ("Open Terminal in Sandbox", "Show Console", "Stop…", "Doctor"):
        assert any(entry in row for row in listed), listed
    window.shot("menu")
    window.page.keyboard.press("Escape")


def test_the_console_has_the_past_and_takes_keys(story: Story) -> None:
    """What the guest prints there cannot reach the clipboard, nor type for the user."""
    window = story.window
    window.palette("Show Console")
    window.page.locator(ROWS).wait_for(timeout=60_000)
    window.wait_terminal(r"dev@sandbox-My-app")
    window.type_terminal("\r")
    window.wait_terminal(r"\$ *$")
    window.type_terminal(
        "echo con$((40 + 2))sole; printf '\\033]52;c;ZXZpbA==\\007\\033[c\\033[6n'; echo é\r"
    )
    shown = window.wait_terminal(r"^con42sole[\s\S]*^é")
    window.page.wait_for_timeout(500)
    shown = window.terminal_text()
    # The answers to the two queries would stand behind the next prompt.
    assert not re.search(r"\$ .*(\[\?|;\d+[Rc]|\d+;\d+R)", shown), shown
    clipboard = window.page.evaluate("() => navigator.clipboard?.readText().catch(() => '')")
    assert clipboard != "evil"
    window.shot("console")


def test_a_second_window_shows_the_same_machine(
    story: Story, windows: Callable[[Path], Window]
) -> None:
    """Its status by files, its console beside the other one."""
    second = windows(story.workspace)
    second.wait_status(RUNNING, 60_000)
    second.palette("Show Console")
    second.wait_terminal(r"con42sole")
    second.type_terminal("echo sec$((50 + 5))ond\r")
    second.wait_terminal(r"^sec55ond")
    story.window.wait_terminal(r"^sec55ond")
    second.page.close()
    story.window.type_terminal("echo still$((1 + 1))here\r")
    story.window.wait_terminal(r"^still2here")


def test_a_killed_service_is_replaced(story: Story, person: Host) -> None:
    """The machine does not notice; the console goes on where it was."""
    before = person.qemu_pid(NAME)
    killed = services(person)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: set(services(person)) - set(killed), "the new service", seconds=60)
    window = story.window

    def answers() -> bool:
        window.type_terminal("echo re$((7 * 11))placed\r")
        window.page.wait_for_timeout(1000)
        return "re77placed" in window.terminal_text()

    wait_for(answers, "the console", seconds=60)
    assert person.qemu_pid(NAME) == before
    assert window.terminal_text().count("still2here") <= 2


def test_a_port_is_offered_and_not_forwarded_by_itself(story: Story, person: Host) -> None:
    """Only after a yes is it there."""
    person.sh(
        NAME, "cd workspace && setsid -f python3 -m http.server 3000 </dev/null >/dev/null 2>&1"
    )
    toast = story.window.toast("listens on port 3000", 120_000)
    assert person.json("status", NAME).get("forwards", []) == []
    story.window.shot("port")
    story.window.press(toast, "Only Forward")
    story.window.toast(r"Port 3000 of .* is 127\.0\.0\.1:\d+ on this host")
    (forward,) = person.json("status", NAME)["forwards"]
    with socket.create_connection(("127.0.0.1", forward["hostPort"]), timeout=60) as one:
        one.sendall(b"GET /made.txt HTTP/1.0\r\n\r\n")
        assert b"written in the guest" in one.makefile("rb").read()


def test_a_restart_says_what_is_lost_and_offers_the_window(
    story: Story, context: BrowserContext, person: Host, provider: Provider
) -> None:
    """The old remote window has lost its machine; the new one needs no server from anywhere."""
    before = person.json("status", NAME)["startedAt"]
    window = story.window
    window.palette("KVM Sandbox: Restart")
    said = window.dialog("Restart")
    assert str(story.workspace) in said
    assert "~/.vscode-server" in said
    toast = window.toast("runs again", START_MS)
    assert person.json("status", NAME)["startedAt"] != before
    provider.drop()
    story.inside.page.close()
    window.shot("restarted")
    story.remote = reopened(context, story, lambda: window.press(toast, "Reopen"))
    explorer(story.inside, "made.txt")
    assert provider.missing == 0


def test_stop_says_what_is_lost_and_is_seen_everywhere(story: Story, person: Host) -> None:
    """The console stays, for the next life; what the guest left to run here is named."""
    window = story.window
    person.sh(NAME, "mkdir -p workspace/.vscode && echo '{}' > workspace/.vscode/settings.json")
    window.palette("KVM Sandbox: Stop")
    window.page.locator(".monaco-dialog-box").wait_for(timeout=60_000)
    window.shot("stop")
    assert "is gone" in window.dialog("Stop")
    window.wait_status(OFF)
    toast = window.toast(r"run by themselves: \.vscode/settings\.json")
    window.press(toast, "Show Changes")
    document = window.page.locator(".monaco-editor .view-lines", has_text="for this host to run")
    document.wait_for(timeout=60_000)
    window.shot("changes")
    assert person.run("status", NAME, check=False).status == 3
    window.wait_terminal("has stopped")


def test_open_recent_starts_the_machine_without_a_network(
    story: Story, person: Host, provider: Provider, windows: Callable[[str], Window]
) -> None:
    """The address of the remote window is all that an editor remembers; its alias does the rest.

    Also the command line is seen: it is the start's own log that says `offline`.
    """
    provider.drop()
    story.inside.page.close()
    query = urllib.parse.urlsplit(story.inside.page.url).query.replace("+", "%2B")
    (uri,) = urllib.parse.parse_qs(query)["folder"]
    person.config_file.write_text('network = "offline"\n')
    try:
        again = windows(uri)
        explorer(again, "made.txt", REMOTE_MS + START_MS)
    finally:
        person.config_file.write_text("")
    again.shot("recent")
    assert provider.missing == 0
    assert person.json("status", NAME)["network"] == "offline"
    story.window.wait_status(RUNNING)
    story.window.wait_terminal(r"dev@sandbox-My-app")
    again.page.close()


def test_a_machine_that_is_killed_is_lost(story: Story, person: Host, provider: Provider) -> None:
    """And said to be, in the status bar and the tooltip."""
    provider.drop()
    found = process.identify(person.qemu_pid(NAME))
    assert found is not None
    found.kill(signal.SIGKILL)
    story.window.wait_status("lost|off", 60_000)
    story.window.shot("lost")


def test_the_window_can_be_closed_while_it_starts(
    story: Story, person: Host, windows: Callable[[Path], Window]
) -> None:
    """The start goes on, and the next window finds it; behind its proxy, as was asked for."""
    story.window.palette("Open with Network Proxy")
    story.window.wait_status("starting")
    story.window.page.close()
    story.window = windows(story.workspace)
    story.window.wait_status(RUNNING)
    value = person.json("status", NAME)
    assert (value["state"], value["network"]) == ("running", "proxy")
    expect(story.window.page.locator(TOAST)).to_have_count(0)


def test_a_refused_host_can_be_allowed(story: Story, person: Host) -> None:
    """Where the proxy said no, the editor asks."""
    window = story.window
    window.palette("Show Console")
    window.wait_terminal(r"dev@sandbox-My-app")
    person.sh(NAME, "curl -s -m 20 http://refused.example/", check=False)
    toast = window.toast(r"wanted to reach refused\.example; its proxy refused")
    window.shot("refused")
    window.press(toast, "Allow Once")
    wait_for(
        lambda: "refused.example" in person.json("proxy", "list", "--sandbox", NAME)["once"],
        "the rule",
    )


def test_the_end(story: Story, person: Host) -> None:
    """Nothing of it runs when the window has stopped it."""
    story.window.palette("KVM Sandbox: Stop")
    story.window.dialog("Stop")
    story.window.wait_status(OFF)
    wait_for(lambda: person.json("list") == [], "the end")
