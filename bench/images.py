#!/usr/bin/env python3
"""From a registry to a disk that can be booted, against the tools one would use by hand.

.venv/bin/python bench/images.py IMAGE [--rounds N] [--oras PROGRAM]

IMAGE is a qcow2 file with a system that has its kernel in /boot, the larger the more it says. It is
compressed (zstd -3, as the ORAS CLI's users do it), pushed to Debian's docker-registry on loopback,
and fetched in interleaved rounds:

    ours         `sandbox image pull` into an empty cache: download, digest, disk, kernel and initrd
    the seed's   oras pull; sha256sum; zstd -d --sparse (where --oras names one: Debian 13 has it)
    by hand      curl -o; sha256sum; zstd -d --sparse
    one pipe     curl | tee >(sha256sum) | zstd -d --sparse

CPU time is that of all processes of a way, the registry's own excepted. Then the kernel, the initrd
and the root are found in the disk, alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import report

from sandbox_rpc.images import extract

SANDBOX = Path(sys.executable).parent / "sandbox"
LIMIT_S = 600
ROOT = Path(tempfile.gettempdir() if "TMPDIR" in os.environ else "/var/tmp")

BY_HAND = """\
set -eu
curl -sS -o disk.zst {url}
[ "$(sha256sum <disk.zst | cut -d' ' -f1)" = {digest} ]
zstd -q -d --sparse disk.zst -o disk.qcow2
rm disk.zst
"""
BY_ORAS = """\
set -eu
{oras} pull --plain-http --no-tty {ref}
[ "$(sha256sum <disk.qcow2.zst | cut -d' ' -f1)" = {digest} ]
zstd -q -d --sparse disk.qcow2.zst -o disk.qcow2
rm disk.qcow2.zst
"""
ONE_PIPE = """\
set -eu -o pipefail
curl -sS {url} | tee >(sha256sum | cut -d' ' -f1 >digest) | zstd -q -d --sparse -o disk.qcow2
sleep 0.05
[ "$(cat digest)" = {digest} ]
"""


class Registry:
    """docker-registry on a port of its own."""

    def __init__(self, folder: Path) -> None:
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": "127.0.0.1:0"},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        log = folder / "registry.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(folder / "config.yml")], stdout=out, stderr=out
            )
        for _ in range(200):
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
                self.host = found[1]
                return
            time.sleep(0.05)
        raise SystemExit(log.read_text())

    def put(self, path: str, data: bytes | Path, method: str = "PUT", kind: str = "") -> None:
        """Send something, as the distribution API has it."""
        with urllib.request.urlopen(
            urllib.request.Request(
                f"http://{self.host}/v2/bench/blobs/uploads/", b"", {}, method="POST"
            )
        ) as answer:
            place = answer.headers["Location"]
        content = data if isinstance(data, bytes) else data.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = f"http://{self.host}{path}" if path else f"{place}&digest={digest}"
        kinds = {"Content-Type": kind or "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, content, kinds, method=method)).close()


def touch_pages(path: Path, size: int) -> None:
    """Write and remove as much as a way does: else the first to write pays for the page cache."""
    piece = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(0, size, len(piece)):
            file.write(piece)
    path.unlink()
    os.sync()


def measured(argv: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(
        argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, check=True, timeout=LIMIT_S,
    )  # fmt: skip
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--oras", type=Path)
    options = parser.parse_args()
    print(report.conditions(), end="\n\n")
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="sbx-bench-") as name:
        folder = Path(name)
        registry = Registry(folder)
        try:
            run(options.image.resolve(), options.rounds, options.oras, folder, registry)
        finally:
            registry.process.kill()
            registry.process.wait()


def run(image: Path, rounds: int, oras: Path | None, folder: Path, registry: Registry) -> None:
    """All rounds."""
    packed = folder / "disk.qcow2.zst"
    subprocess.run(["zstd", "-q", "-3", "-T0", str(image), "-o", str(packed)], check=True)
    content = packed.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    registry.put("", content)
    registry.put("", b"{}")
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{digest}",
        "size": len(content), "annotations": {"org.opencontainers.image.title": packed.name},
    }  # fmt: skip
    empty = {
        "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
    }  # fmt: skip
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": empty, "layers": [layer]}
    registry.put("/v2/bench/manifests/1", json.dumps(manifest).encode(), kind=kind)
    packed.unlink()
    url = f"http://{registry.host}/v2/bench/blobs/sha256:{digest}"
    ways = {
        "`sandbox image pull`": [str(SANDBOX), "image", "pull", f"{registry.host}/bench:1"],
        "curl; sha256sum; zstd -d": ["bash", "-c", BY_HAND.format(url=url, digest=digest)],
        "curl, tee, sha256sum, zstd -d": ["bash", "-c", ONE_PIPE.format(url=url, digest=digest)],
    }
    if oras is not None:
        script = BY_ORAS.format(oras=oras.resolve(), ref=f"{registry.host}/bench:1", digest=digest)
        ways["oras pull; sha256sum; zstd -d"] = ["bash", "-c", script]
    walls: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cold: list[float] = []
    for number in range(rounds + 1):
        for way, argv in ways.items():
            place = folder / "work"
            place.mkdir()
            environment = {
                "PATH": os.environ["PATH"], "HOME": str(place), "SANDBOX_CACHE_BASE": str(place),
            }  # fmt: skip
            touch_pages(folder / "pages", len(content) + image.stat().st_size)
            wall, cpu = measured(argv, place, environment)
            if number:  # the first one only warms the caches
                walls[way].append(wall)
                seconds[way].append(cpu)
            shutil.rmtree(place)
        target = folder / "out"
        target.mkdir()
        began = time.monotonic()
        extract.extract(image, target, "vmlinuz", "initrd")
        cold.append(time.monotonic() - began)
        shutil.rmtree(target)
    first = next(iter(ways))
    base = statistics.median(seconds[first])
    rows = [
        [way, report.spread(seconds[way], 2), f"{statistics.median(seconds[way]) / base:.2f}",
         report.spread(walls[way], 2)]
        for way in ways
    ]  # fmt: skip
    print(
        f"{len(content) >> 20} MiB in the registry, {image.stat().st_size >> 20} MiB unpacked; ",
        end="",
    )
    print(f"{rounds} interleaved rounds.\n")
    print(report.table(["Way", "CPU, s", "Relative", "Wall, s"], rows))
    print(f"\nKernel, initrd and root out of the disk alone: {report.spread(cold, 2)} s.")


if __name__ == "__main__":
    main()
