#!/usr/bin/env python3
"""Starts, from the request to a proven login: ours, and QEMU without this program.

.venv/bin/python bench/start.py [--rounds N] [--accelerator auto|kvm|tcg]

Four ways in interleaved rounds, so that whatever else the machine does meets them all:

    (a) plain   a shell script boots QEMU with Debian's own initrd and units, and asks ssh once a
                second, as the seed's wait_for_ssh did
    (b) cold    `sandbox/start` with warm = never, over the real service on stdio
    (c) warm    `sandbox/start` from a template, over the same
    (d) bare    a shell script restores QEMU, with the same options, from a machine that was saved
                with its identity in it, and runs `ssh true` once: no program can be faster

Beside them, `bare cold` is (b) by the script. The images come from one tree of packages; they are
built where the cache has none (minutes). Nothing of it touches the user's own sandboxes:
SANDBOX_BENCH_CACHE names the cache base, by default a folder below /var/tmp that is kept for the
next run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import report
from bare import bare

from sandbox_rpc.client import Client
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import build, recipe, reference, store
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol import types as t
from sandbox_rpc.protocol.errors import ImageNotFound
from sandbox_rpc.protocol.progress import Progress

PLAIN = "local/debian-13:plain"
WAYS = {
    "plain": "(a) plain Debian, a script, ssh once a second",
    "bare cold": "bare QEMU boots our image, a script",
    "cold": "(b) `sandbox/start`, `warm = never`",
    "warm": "(c) `sandbox/start`, from a template",
    "bare": "(d) bare QEMU restored, one `ssh true`",
}


def images(layout: Layout) -> tuple[StoredImage, StoredImage]:
    """The trimmed and the plain image, from one tree."""
    try:
        return store.resolve(layout, reference.BUILT), store.resolve(layout, PLAIN)
    except ImageNotFound:
        pass

    def show(progress: Progress) -> None:
        sys.stderr.write(f"\r\x1b[K{progress.percentage}% {progress.message}")

    async def make() -> dict[str, StoredImage]:
        wanted: Mapping[str, recipe.Variant] = {
            reference.BUILT: recipe.TRIM,
            PLAIN: recipe.STOCK,
        }
        return await build.build_variants(layout, wanted, show)

    made = anyio.run(make)
    sys.stderr.write("\n")
    return made[reference.BUILT], made[PLAIN]


def ours(client: Client, folder: Path, **settings: object) -> tuple[float, t.Sandbox]:
    """Seconds from the request to the response, and what it said."""
    params = {"workspace": str(folder), "image": reference.BUILT, **settings}
    began = time.monotonic()
    answer = client.request_raw("sandbox/start", params)
    seconds = time.monotonic() - began
    sandbox = client.status(answer["name"])
    client.stop(sandbox.name, force=True)
    return seconds, sandbox


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", default="auto", choices=["auto", "kvm", "tcg"])
    options = parser.parse_args()
    base = Path(
        os.environ.get("SANDBOX_BENCH_CACHE", f"/var/tmp/sandbox-bench-{os.getuid()}")
    ).absolute()
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        sys.exit(f"{base} belongs to somebody else")
    layout = Layout(base)
    layout.make()
    trimmed, plain = images(layout)
    # The workspace may not lie in the cache base.
    outside = Path(tempfile.mkdtemp(prefix="sandbox-bench."))
    folder = outside / "project"
    folder.mkdir()
    environment = {"SANDBOX_CACHE_BASE": str(base), "SSH_AUTH_SOCK": ""}
    conditions = report.conditions()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    phases: dict[str, list[float]] = {}
    try:
        with Client(env=environment) as client:
            settings = {"accelerator": options.accelerator}
            _, first = ours(client, folder, **settings)  # makes the template
            assert first.startup is not None
            if first.startup.kind is not t.StartKind.WARM:
                sys.exit(f"this host starts cold: {first.startup.reason}")
            accelerator = str(first.accelerator)
            with bare(layout, trimmed, accelerator, folder) as saved:
                saved.save()
                for number in range(options.rounds):
                    with bare(layout, plain, accelerator, folder) as one:
                        seconds["plain"].append(one.boot(one.machine, 1.0))
                    with bare(layout, trimmed, accelerator, folder) as one:
                        seconds["bare cold"].append(one.boot(one.machine, 0.2))
                    taken, _ = ours(client, folder, warm="never", **settings)
                    seconds["cold"].append(taken)
                    taken, sandbox = ours(client, folder, **settings)
                    assert sandbox.startup is not None
                    assert sandbox.startup.kind is t.StartKind.WARM, sandbox.startup.reason
                    seconds["warm"].append(taken)
                    phased = {one.name: one.seconds for one in sandbox.startup.phases}
                    phased["(outside the supervisor)"] = taken - sum(phased.values())
                    for name, value in phased.items():
                        phases.setdefault(name, []).append(value)
                    seconds["bare"].append(saved.restore())
                    now = ", ".join(f"{name} {values[-1]:.1f}" for name, values in seconds.items())
                    print(f"round {number + 1}: {now}", file=sys.stderr)
    finally:
        subprocess.run(
            [sys.executable, "-P", "-m", "sandbox_rpc.cli.main", "forget", "sandbox-project"],
            env={**os.environ, **environment}, capture_output=True, check=False,
        )  # fmt: skip
        shutil.rmtree(outside)
    print(f"{conditions} Accelerator {accelerator}, {options.rounds} interleaved rounds.\n")
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        [WAYS[name], report.spread(values, 2), f"{middle[name] / middle['warm']:.2f}"]
        for name, values in seconds.items()
    ]
    print(report.table(["Way", "Median (least to most), s", "Relative to (c)"], rows))
    print(
        f"\n(a) / (c) = {middle['plain'] / middle['warm']:.1f}, to hold: at least 10; "
        f"(c) / (d) = {middle['warm'] / middle['bare']:.2f}, to hold: at most 2.\n"
    )
    print("Where (c) is spent:\n")
    rows = [[name, report.spread(values, 2)] for name, values in phases.items()]
    print(report.table(["Phase", "Median (least to most), s"], rows))


if __name__ == "__main__":
    main()
