#!/usr/bin/env python3
"""Record the session that the README shows, in a real terminal (tmux), and draw it as an SVG.

.venv/bin/python docs/terminal.py >docs/terminal.svg
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

COLUMNS, ROWS = 96, 60
LIMIT_S = 600
CELL_W, CELL_H, MARGIN = 8.4, 18, 16
COLOURS = {
    30: "#3b4252", 31: "#bf616a", 32: "#a3be8c", 33: "#ebcb8b",
    34: "#81a1c1", 35: "#b48ead", 36: "#88c0d0", 37: "#e5e9f0",
}  # fmt: skip
HOST, GUEST = "~/hello$ ", "dev@"

SESSION = (
    (HOST, "ls"),
    (HOST, "sandbox"),
    (GUEST, "ls; systemd-detect-virt; sudo systemctl is-system-running --wait"),
    (GUEST, "python3 hello.py | tee from-the-guest.txt"),
    (GUEST, "exit"),
    (HOST, "sandbox exec -- sh -c 'exit 7'; echo \"exit status $?\""),
    (HOST, "sandbox status"),
    (HOST, "sandbox stop; ls"),
)
"""What to wait for, and what to type then."""


def record(folder: Path) -> str:
    """What the terminal shows at the end, with its colours as escape sequences."""
    project = folder / "hello"
    project.mkdir()
    (project / "hello.py").write_text(
        'import platform, getpass\nprint(getpass.getuser(), "on", platform.node())\n'
    )
    tmux = ["tmux", "-L", f"sandbox-docs-{os.getpid()}", "-f", "/dev/null"]
    environment = {
        **os.environ, "HOME": str(folder), "TERM": "xterm-256color",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(project),
         r"exec env PS1='\w$ ' bash --norc --noprofile"],
        env=environment, check=True,
    )  # fmt: skip
    try:
        for prompt, words in (*SESSION, (HOST, "")):
            wait_for(tmux, prompt)
            if words:
                subprocess.run([*tmux, "send-keys", "-l", words], check=True)
                subprocess.run([*tmux, "send-keys", "Enter"], check=True)
                time.sleep(1)
        return screen(tmux, "-e")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def wait_for(tmux: list[str], prompt: str) -> None:
    """Wait until the last line is a prompt."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        lines = screen(tmux).rstrip("\n").splitlines() or [""]
        if lines[-1].startswith(prompt.rstrip()) and lines[-1].rstrip().endswith("$"):
            return
        time.sleep(0.3)
    raise SystemExit(f"no prompt {prompt!r}:\n{screen(tmux)}")


def screen(tmux: list[str], *options: str) -> str:
    """The terminal's content."""
    argv = [*tmux, "capture-pane", "-p", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def runs(line: str) -> Iterator[tuple[str, str]]:
    """Text and style, piece by piece."""
    colour, bold = "", False
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not part.startswith("\x1b"):
            if part:
                style = f' fill="{colour}"' if colour else ""
                yield part, style + (' font-weight="bold"' if bold else "")
            continue
        for code in (int(number or 0) for number in part[2:-1].split(";")):
            if code == 0:
                colour, bold = "", False
            elif code == 1:
                bold = True
            elif code % 60 in COLOURS:
                colour = COLOURS[code % 60]
            elif code == 39:
                colour = ""


def draw(text: str) -> str:
    """The picture."""
    lines = text.rstrip("\n").splitlines()
    while lines and lines[-1].strip() in ("", HOST.strip()):
        lines.pop()
    width = COLUMNS * CELL_W + 2 * MARGIN
    height = len(lines) * CELL_H + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14">',
        "<title>A terminal session: start, look around, stop</title>",
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#2e3440"/>',
        '<g fill="#d8dee9" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        column = 0
        for piece, style in runs(line):
            x, y = MARGIN + column * CELL_W, MARGIN + (number + 0.75) * CELL_H
            long = f' textLength="{len(piece) * CELL_W:.1f}"' if piece.strip() else ""
            if piece.strip():
                out.append(
                    f'<text x="{x:.1f}" y="{y:.1f}"{long}{style}>{html.escape(piece)}</text>'
                )
            column += len(piece)
    return "\n".join([*out, "</g>", "</svg>", ""])


def main() -> None:
    """Record and draw."""
    folder = Path(tempfile.mkdtemp(prefix="demo.", dir="/tmp"))
    try:
        text = record(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text, file=sys.stderr)
    sys.stdout.write(draw(text))


if __name__ == "__main__":
    main()
