"""Fixtures: one user with an editor, a browser, a window on a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright

from release import vsix as builder
from tests.editor import bed, workbench
from tests.editor.editor import Editor, Window
from tests.editor.provider import Provider
from tests.vm.conftest import MakeHost, built, make_host, top
from tests.vm.host import Host

__all__ = ["built", "make_host", "top"]

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(os.environ.get("SANDBOX_SHOTS") or ROOT / "dist" / "screenshots")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
DATA_FOLDER = ".vscode-server-oss"
"""Where this editor's server lies in a guest's home."""

Report = Generator[None, pytest.TestReport, pytest.TestReport]
NewEditor = Callable[..., Editor]


@pytest.fixture(scope="session")
def vsix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension as it is shipped."""
    out = tmp_path_factory.mktemp("vsix") / "kvm-sandbox.vsix"
    builder.build(out)
    return out


@pytest.fixture(scope="session")
def code_server() -> Path:
    """The editor."""
    return bed.code_server()


@pytest.fixture(scope="session")
def new_editor(
    code_server: Path, vsix: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewEditor]:
    """Make editors; they end here."""
    stand_in = bed.pack(
        Path(__file__).parent / "provider", tmp_path_factory.mktemp("stand-in") / "provider.vsix"
    )
    made: list[Editor] = []

    def make(
        host: Host,
        *,
        path: str | None = None,
        remote: bool = True,
        options: Sequence[str] = (),
        **settings: object,
    ) -> Editor:
        folder = host.folder / f"editor{len(made)}"
        editor = Editor(host, folder, code_server, SHOTS, path, tuple(options))
        made.append(editor)
        editor.settings(remote__SSH__configFile=str(host.home / ".ssh" / "config"), **settings)
        editor.add(vsix)
        if remote:
            editor.add(stand_in)
        editor.start()
        return editor

    yield make
    for editor in made:
        editor.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield browser
        with suppress(Error):
            browser.close()


@pytest.fixture(scope="session")
def person(make_host: MakeHost) -> Host:
    """The user at the editor; their first start makes a template."""
    return make_host("person", own_templates=True)


@pytest.fixture(scope="session")
def editor(new_editor: NewEditor, person: Host) -> Editor:
    """Their editor."""
    return new_editor(person)


@pytest.fixture(scope="session")
def provider(person: Host, code_server: Path) -> Iterator[Provider]:
    """What opens SSH windows."""
    config = person.home / ".ssh" / "config"
    found = Provider(person, config, DATA_FOLDER, bed.commit(code_server))
    found.start()
    yield found
    found.close()


@pytest.fixture(scope="session")
def context(browser: Browser, provider: Provider) -> Iterator[BrowserContext]:
    """A browser's profile whose windows can be SSH windows."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    workbench.install(context, provider.port)
    yield context
    with suppress(Error):
        context.close()


@pytest.fixture(scope="module")
def windows(
    editor: Editor, context: BrowserContext
) -> Iterator[Callable[[Path | str | None], Window]]:
    """Open windows of the person's editor; they are closed after the module."""
    made: list[Window] = []

    def make(folder: Path | str | None) -> Window:
        made.append(Window.open(editor, context, folder))
        return made[-1]

    yield make
    for one in made:
        with suppress(Error):
            one.page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Report:
    """After a failure: pictures of all windows, and what the extension has logged."""
    report = yield
    if report.failed:
        found = getattr(item, "funcargs", {})
        if isinstance(context := found.get("context"), BrowserContext):
            for number, page in enumerate(context.pages):
                SHOTS.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=str(SHOTS / f"failed-{item.name}-{number}.png"))
        if isinstance(editor := found.get("editor"), Editor):
            report.sections.append(("extension", editor.extension_log()[-8000:]))
    return report
