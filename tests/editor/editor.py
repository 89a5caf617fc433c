"""One user's editor: a code-server process, and what a person does in its windows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from playwright.sync_api import BrowserContext, Locator, Page

from tests.editor import bed
from tests.vm.host import Host, wait_for

LISTENING = re.compile(rb"listening on http://127\.0\.0\.1:(\d+)/")
STATUS = '[id="sandbox-rpc.kvm-sandbox.vm"]'
WORKBENCH = ".monaco-workbench .part.statusbar"
TOAST = ".notifications-toasts .notification-toast"
ROWS = ".terminal-wrapper.active .xterm-rows"
START_MS = 150_000
"""For a start under emulation on a busy machine."""

SETTINGS: dict[str, Any] = {
    "workbench.startupEditor": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.disableAIFeatures": True,
    "security.workspace.trust.enabled": False,
    "terminal.integrated.gpuAcceleration": "off",
    "telemetry.telemetryLevel": "off",
    "window.restoreWindows": "none",
    "extensions.ignoreRecommendations": True,
    "workbench.tips.enabled": False,
}


@define
class Editor:
    """A code-server of one user."""

    host: Host
    folder: Path
    """Its data: settings, extensions, logs."""
    code_server: Path
    shots: Path
    """Where screenshots go."""
    path: str | None = None
    """PATH of the editor and all it starts, where it is not the tests'."""
    options: tuple[str, ...] = ()
    """More words for it."""
    port: int = 0
    log: list[bytes] = field(factory=list)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def _words(self) -> list[str]:
        data = ["--user-data-dir", str(self.folder / "data")]
        data += ["--extensions-dir", str(self.folder / "extensions")]
        entry = str(self.code_server / "out/node/entry.js")
        return [str(bed.NODE), entry, *data, "--config", str(self.folder / "config.yaml")]

    @property
    def _environment(self) -> dict[str, str]:
        # No gallery: nothing is looked up outside.
        return {"EXTENSIONS_GALLERY": "{}", **({"PATH": self.path} if self.path else {})}

    def settings(self, **more: Any) -> None:
        """Write the user's settings."""
        user = self.folder / "data" / "User"
        for folder in (self.folder, self.folder / "data", user):
            folder.mkdir(exist_ok=True)
            self.host.give(folder)
        file = user / "settings.json"
        changed = {key.replace("__", "."): value for key, value in more.items()}
        file.write_text(json.dumps({**SETTINGS, **changed}))
        self.host.give(file)

    def add(self, vsix: Path) -> None:
        """Install an extension."""
        self.host.call([*self._words, "--install-extension", str(vsix)], env=self._environment)

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = [*self._words, "--bind-addr", "127.0.0.1:0", "--auth", "none"]
        words += ["--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"]
        words += ["--disable-getting-started-override"]
        words += self.options
        self._process = self.host.popen(
            words, env=self._environment, stderr=subprocess.STDOUT, start_new_session=True
        )
        threading.Thread(target=self._hear, args=[self._process], daemon=True).start()
        wait_for(lambda: self.port or self._process_ended(), "the editor's server", seconds=60)
        assert self.port, b"".join(self.log).decode()

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line)
            if found := LISTENING.search(line):
                self.port = int(found[1])

    def close(self) -> None:
        """End it, with its extension hosts and what they have started; sandboxes go on."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Its extension hosts would wait for hours for a window to come back.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def url(self, folder: Path | str | None) -> str:
        """The address of a window on a folder or workspace file; a text is a URI elsewhere."""
        kind = "workspace" if str(folder).endswith(".code-workspace") else "folder"
        query = "" if folder is None else f"?{kind}=" + urllib.parse.quote(str(folder), safe="/:+")
        return f"http://127.0.0.1:{self.port}/{query}"

    def extension_log(self) -> str:
        """What the extension has written, in all windows."""
        files = sorted(self.folder.glob("data/logs/**/*KVM Sandbox*.log"))
        return "\n".join(f"== {file}\n{file.read_text(errors='replace')}" for file in files)


@define
class Window:
    """One window, and what a person does in it."""

    editor: Editor
    page: Page

    @classmethod
    def open(cls, editor: Editor, context: BrowserContext, folder: Path | str | None) -> Window:
        """A new window on a folder."""
        page = context.new_page()
        page.goto(editor.url(folder), wait_until="domcontentloaded")
        window = cls(editor, page)
        window.ready()
        return window

    def ready(self, timeout_ms: int = 90_000) -> None:
        """Wait until it has drawn itself."""
        self.page.locator(WORKBENCH).wait_for(timeout=timeout_ms)

    @property
    def status(self) -> Locator:
        """Our item in the status bar."""
        return self.page.locator(STATUS)

    def wait_status(self, text: str, timeout_ms: int = START_MS) -> None:
        """Wait until our item shows a text."""
        found = self.page.locator(STATUS, has_text=re.compile(text))
        found.wait_for(timeout=timeout_ms)

    def palette(self, command: str) -> None:
        """Run a command by its words."""
        self.page.bring_to_front()
        self.page.keyboard.press("F1")
        box = self.page.locator(".quick-input-widget .quick-input-box input").first
        box.wait_for()
        box.fill(f">{command}")
        row = self.page.locator(".quick-input-list .monaco-list-row", has_text=command).first
        row.wait_for(timeout=30_000)
        self.page.keyboard.press("Enter")

    def toast(self, text: str, timeout_ms: int = 60_000) -> Locator:
        """A notification with these words."""
        found = self.page.locator(TOAST, has_text=re.compile(text)).first
        found.wait_for(timeout=timeout_ms)
        return found

    def press(self, toast: Locator, button: str) -> None:
        """A button of a notification."""
        toast.hover()
        toast.get_by_role("button", name=button).click()

    def dialog(self, button: str) -> str:
        """Press a button of a modal dialog; its words."""
        box = self.page.locator(".monaco-dialog-box")
        box.wait_for(timeout=60_000)
        text = box.inner_text()
        box.get_by_role("button", name=button, exact=True).click()
        return text

    def terminal_text(self) -> str:
        """What the shown terminal has on its screen."""
        rows = self.page.locator(ROWS)
        rows.wait_for(timeout=60_000)
        return rows.inner_text().replace("\u00a0", " ")

    def wait_terminal(self, text: str, timeout_s: float = 60) -> str:
        """Wait for a text on its screen; all that is there."""
        pattern = re.compile(text, re.MULTILINE)
        limit = time.monotonic() + timeout_s
        while not pattern.search(shown := self.terminal_text()):
            assert time.monotonic() < limit, f"no {text!r} in the terminal:\n{shown}"
            self.page.wait_for_timeout(100)
        return shown

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.page.keyboard.type(text)

    def type_terminal(self, text: str) -> None:
        """Type into the shown terminal."""
        self.page.bring_to_front()
        self.page.locator(".terminal-wrapper.active .xterm-screen").click()
        self.page.keyboard.type(text)

    def shot(self, name: str) -> None:
        """Keep a picture."""
        self.editor.shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(self.editor.shots / f"{name}.png"), animations="disabled")
