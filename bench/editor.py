#!/usr/bin/env python3
"""From the palette command to the filled explorer of the remote window: the first time, and again.

.venv/bin/python bench/editor.py [--rounds N]

A real editor (code-server) in a real browser, as tests/editor drives it, with the provider of SSH
windows of these tests: what it costs is the start, the login, the server in the guest and the
window. Each round takes a new folder, so that the first time really is one:

    first    nothing is there: the service starts, the editor's server is handed in
    again    stopped, and opened once more by the same command: the server is there
    running  the window was closed, the machine goes on

`sandbox start` is what the machine took of it, as it says itself. SANDBOX_BENCH_CACHE names the
cache base with the image, as for bench/start.py. It takes what the editor tests take: `bin/test
editor -- -k nothing` installs that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import report
from playwright.sync_api import BrowserContext, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release import vsix  # noqa: E402
from tests.editor import bed, workbench  # noqa: E402
from tests.editor.conftest import DATA_FOLDER, FLAGS  # noqa: E402
from tests.editor.editor import START_MS, TOAST, Editor, Window  # noqa: E402
from tests.editor.provider import Provider  # noqa: E402
from tests.vm import host as hosts  # noqa: E402

LIMIT_MS = 300_000
WAYS = ("first", "again", "running")


def opened(context: BrowserContext, window: Window, provider: Provider) -> float:
    """Seconds from the command to a file in the remote window's explorer."""
    began = time.monotonic()
    with context.expect_page(timeout=LIMIT_MS) as caught:
        window.palette("Open in KVM Sandbox")
    remote = Window(window.editor, caught.value)
    row = remote.page.locator(".explorer-folders-view .monaco-list-row", has_text="README.md")
    row.first.wait_for(timeout=LIMIT_MS)
    seconds = time.monotonic() - began
    provider.drop()
    remote.page.close()
    return seconds


def measure(rounds: int, cache: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds by way, and those of the starts in them."""
    top = hosts.make_top()
    host = hosts.make_host(top, "bench", cache, program=hosts.our_program())
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    starts: dict[str, list[float]] = {way: [] for way in WAYS}
    folder = bed.code_server()
    editor = Editor(host, host.folder / "editor", folder, top / "shots")
    config = host.home / ".ssh" / "config"
    provider = Provider(host, config, DATA_FOLDER, bed.commit(folder))
    try:
        editor.settings(remote__SSH__configFile=str(config), kvmSandbox__ssh__include="always")
        vsix.build(top / "kvm-sandbox.vsix")
        editor.add(top / "kvm-sandbox.vsix")
        editor.add(bed.pack(ROOT / "tests/editor/provider", top / "provider.vsix"))
        editor.start()
        provider.start()
        chromium = shutil.which("chromium")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            context = browser.new_context(bypass_csp=True)
            workbench.install(context, provider.port)
            for number in range(rounds):
                workspace = host.workspace(f"round{number}")
                (workspace / "README.md").write_text("# Measured\n")
                name = f"sandbox-round{number}"
                window = Window.open(editor, context, workspace)
                window.status.wait_for(timeout=60_000)
                for way in WAYS:
                    found[way].append(opened(context, window, provider))
                    value = host.json("status", name)
                    phases = value["startup"]["phases"] if way != "running" else []
                    starts[way].append(sum(phase["seconds"] for phase in phases))
                    if way == "first":
                        host.run("stop", name)
                        window.wait_status("off", START_MS)
                    window.page.locator(TOAST).first.wait_for(state="hidden", timeout=60_000)
                host.run("stop", name)
                window.page.close()
            browser.close()
    finally:
        provider.close()
        editor.close()
        host.close()
        shutil.rmtree(top, ignore_errors=True)
    return found, starts


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    base = Path(os.environ.get("SANDBOX_BENCH_CACHE") or Path(tempfile.gettempdir()) / "none")
    cache = base / "kvm-cache"
    if not cache.is_dir():
        parser.error("SANDBOX_BENCH_CACHE must name a cache base with an image")
    print(report.conditions())
    found, starts = measure(options.rounds, cache.resolve())
    reference = statistics.median(found["first"])
    rows = [
        [
            way,
            report.spread(found[way]),
            report.spread(starts[way]),
            f"{statistics.median(found[way]) / reference:.2f}",
        ]
        for way in WAYS
    ]
    head = ["Way", "Seconds", "of these `sandbox start`", "Relative to the first"]
    print(f"\n{report.table(head, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
