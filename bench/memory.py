#!/usr/bin/env python3
"""What the processes of one running sandbox hold of the host's memory.

.venv/bin/python bench/memory.py [SANDBOX]

Resident (RSS) counts pages that are shared with other processes in full, proportional (PSS) counts
each in proportion to its sharers: the sum of PSS is what would be free without them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import report

from sandbox_rpc.host import locks
from sandbox_rpc.host.paths import Layout

SANDBOX = Path(sys.executable).parent / "sandbox"


def held_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process in MiB."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss"))  # type: ignore[return-value]


def parent(pid: int) -> int:
    """The process that started this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def name_of(pid: int) -> str:
    """A process's short name."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sandbox", nargs="?", default=".", help="name or folder")
    wanted = parser.parse_args().sandbox
    done = subprocess.run(
        [SANDBOX, "status", "--json", wanted], stdout=subprocess.PIPE, check=False
    )
    value = json.loads(done.stdout)
    if value["state"] != "running":
        sys.exit(f"{value['name']} is {value['state']}")
    processes = {
        f"supervisor ({name_of(pid)})": pid
        for pid in locks.holders(Layout.of_user().home(value["name"]).supervisor_lock)
    }
    if name_of(parent(value["pid"])) == "bwrap":
        processes["bubblewrap's monitor"] = parent(value["pid"])
    processes["QEMU"] = value["pid"]
    held = {name: held_mib(pid) for name, pid in processes.items()}
    rows = [[name, f"{rss:.1f}", f"{pss:.1f}"] for name, (rss, pss) in held.items()]
    ours = [both for name, both in held.items() if name != "QEMU"]
    rows.append(["all but QEMU", *(f"{sum(column):.1f}" for column in zip(*ours, strict=True))])
    print(
        f"{report.conditions()} One sandbox of {value['memoryMib']} MiB and {value['cpus']} "
        f"processors under {value['accelerator']}.\n"
    )
    print(report.table(["Process", "Resident, MiB", "Proportional, MiB"], rows))


if __name__ == "__main__":
    main()
