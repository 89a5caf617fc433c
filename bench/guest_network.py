"""The network of two real guests side by side: the network process, and QEMU's own.

    SANDBOX_TEST_CACHE=FOLDER python bench/guest_network.py [--rounds N] [--seconds S]

FOLDER is a cache base with the default image. Both machines run all the time, on the host of the
tests' island; one at a time works. The second one's interpreter is told that there is no libslirp.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report
from network import PORTS, serve, spent

from sandbox_rpc.network import launch
from tests.unit.network.lab import INTERNET
from tests.vm import host as hosts
from tests.vm.host import Host
from tests.vm.island import Island
from tests.vm.test_usernet import WITHOUT

MOVE = r"""
perl -MIO::Socket::INET -MTime::HiRes=time -e '
    my ($way, $port, $seconds) = @ARGV;
    my $one = IO::Socket::INET->new(PeerAddr => "%s", PeerPort => $port) or die $!;
    my ($data, $moved, $began) = ("x" x 262144, 0, time);
    while (time < $began + $seconds) {
        $moved += $way eq "up" ? syswrite($one, $data) : sysread($one, $data, 262144);
    }
    print $moved / (time - $began) / 1e6;
' %s %d %g
"""
ANSWER = r"""
perl -MIO::Socket::INET -MTime::HiRes=time -e '
    my $one = IO::Socket::INET->new(PeerAddr => "%s", PeerPort => %d) or die $!;
    setsockopt($one, 6, 1, 1);
    my @all;
    for (1 .. 300) {
        my $began = time;
        syswrite($one, "x"); sysread($one, my $back, 9);
        push @all, time - $began;
    }
    @all = sort { $a <=> $b } @all;
    print 1000 * $all[150];
'
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    conditions = report.conditions()
    cache = Path(os.environ["SANDBOX_TEST_CACHE"]) / "kvm-cache"
    with ExitStack() as stack:
        top = hosts.make_top()
        island = Island(top / "island")
        stack.callback(island.stop)
        for pid in serve(island.world):
            stack.callback(os.kill, pid, 9)
        machines: dict[str, tuple[Host, str, list[int]]] = {}
        for label, way in (("plain", "QEMU's own network"), ("ours", "network process")):
            host = hosts.make_host(top, label, cache, program=hosts.our_program())
            stack.callback(host.close)
            host.prefix[:0] = island.prefix
            if label == "plain":
                (host.folder / "sitecustomize.py").write_text(WITHOUT)
                host.extra["PYTHONPATH"] = str(host.folder)
            value = host.start(host.workspace(label))
            pids = [value["pid"]]
            if label == "ours":
                running = launch.attach(host.room_of(value["name"]).network_control)
                running.control.close()
                pids.append(running.pid)
            machines[way] = host, value["name"], pids
        found: dict[str, list[tuple[float, ...]]] = {way: [] for way in machines}
        for number in range(options.rounds):
            for way, (host, name, pids) in machines.items():
                row: list[float] = []
                for direction in ("up", "down"):
                    before = spent(pids)
                    words = (INTERNET, direction, PORTS[direction], options.seconds)
                    rate = float(host.sh(name, MOVE % words).out)
                    row += [rate, (spent(pids) - before) / (rate * options.seconds / 100)]
                row.append(float(host.sh(name, ANSWER % (INTERNET, PORTS["answer"])).out))
                found[way].append(tuple(row))
                print(f"{number + 1} {way}: {row[0]:.0f} up, {row[2]:.0f} down", file=sys.stderr)
    print(f"{conditions} {options.rounds} interleaved rounds, {options.seconds:g} s each way.\n")
    rows = []
    base = [statistics.median(one) for one in zip(*next(iter(found.values())), strict=True)]
    for way, rounds in found.items():
        columns = list(zip(*rounds, strict=True))
        middle = [statistics.median(one) for one in columns]
        rows.append(
            [
                way,
                f"{report.spread(columns[0], 0)}, {middle[0] / base[0]:.2f}",
                f"{report.spread(columns[2], 0)}, {middle[2] / base[2]:.2f}",
                f"{middle[1]:.2f} / {middle[3]:.2f}",
                f"{middle[4]:.2f}",
            ]
        )
    head = ["Way", "Up, MB/s, ratio", "Down, MB/s, ratio",
            "CPU s of QEMU and it per 100 MB, up / down", "Answer, ms"]  # fmt: skip
    print(report.table(head, rows))


if __name__ == "__main__":
    main()
