#!/usr/bin/env python3
"""What a command costs before it does anything: `sandbox --help` against an empty Python.

.venv/bin/python bench/cli.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import report

ROOT = Path(__file__).resolve().parents[1]
SANDBOX = Path(sys.executable).parent / "sandbox"


def main() -> None:
    """Measure in interleaved rounds and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    commands: dict[str, list[str]] = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`sandbox --help`": [str(SANDBOX), "--help"],
        "`bin/sandbox --help`": [str(ROOT / "bin" / "sandbox"), "--help"],
        "`sandbox list`": [str(SANDBOX), "list"],
    }
    print(f"{report.conditions()} {rounds} interleaved rounds, milliseconds.\n")
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
            if number:  # the first round fills the caches
                seconds[name].append(time.perf_counter() - began)
    base = statistics.median(seconds["`python -c pass`"])
    rows = [
        [name, report.spread([1000 * one for one in values]),
         f"{statistics.median(values) / base:.2f}"]
        for name, values in seconds.items()
    ]  # fmt: skip
    print(report.table(["Command", "Median (least to most), ms", "Ratio"], rows))


if __name__ == "__main__":
    main()
