"""Making an image on this machine: packages to a tree, the tree to a disk, the disk to the store.

No root, no loop device and no virtual machine are needed: mmdebstrap and mke2fs work in a user
namespace.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import platform
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

from sandbox_rpc.host import files, process
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import bootstrap, initrd, mirror, recipe, refs, store
from sandbox_rpc.images.staging import Staging, as_root, staging
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.protocol.errors import BuildFailed, DiskFull
from sandbox_rpc.protocol.progress import Progress, Report, silent

NEEDED_MIB = 3072
"""Free space a build wants: tree, raw disk and qcow2 lie beside each other for a moment."""
LOG = "build.log"
SUBUID = Path("/etc/subuid")


async def build(
    layout: Layout,
    ref: str,
    report: Report = silent,
    *,
    trimmed: bool = True,
    source: str = "",
    chosen: bool = True,
) -> StoredImage:
    """Build a Debian image from the mirror `source`, or the one this host uses; name it `ref`.

    Takes about a minute, and 3 GiB of room while it runs. Cancelling leaves nothing behind.
    `chosen`: somebody asked for it by name, so folders with another image move on to it.

    Raises:
        ImageNotFound: not a name an image can have.
        ToolMissing: mmdebstrap, mke2fs, qemu-img or newuidmap is not installed.
        DiskFull: no room.
        BuildFailed: a tool failed; the log is kept.
    """
    variant = recipe.TRIM if trimmed else recipe.STOCK
    made = await build_variants(layout, {ref: variant}, report, source=source, chosen=chosen)
    return made[ref]


async def build_variants(
    layout: Layout,
    wanted: Mapping[str, recipe.Variant],
    report: Report = silent,
    *,
    source: str = "",
    chosen: bool = True,
) -> dict[str, StoredImage]:
    """Build several images from one tree of packages, for comparisons; errors as in `build`."""
    for ref in wanted:
        refs.normalize(ref)
    _check_machine(layout)
    log_kept = layout.cache / LOG
    async with staging(layout) as place:
        log = bootstrap.Log(place.folder / LOG)
        try:
            return await _Build(layout, place, log, report, source, chosen).run(wanted)
        except (BuildFailed, DiskFull) as error:
            with contextlib.suppress(OSError):
                os.replace(log.path, log_kept)
            if error.hint and isinstance(error, BuildFailed):
                error.hint = error.hint.replace(str(log.path), str(log_kept))
            error.details = {
                name: str(log_kept) if value == str(log.path) else value
                for name, value in error.details.items()
            }
            raise


def _check_machine(layout: Layout) -> None:
    """Everything that can be known to fail before the first minute has passed."""
    for tool in ("mmdebstrap", "mke2fs", "qemu-img", "tar"):
        process.find(tool)
    arch = platform.machine()
    if arch not in recipe.KERNELS:
        raise BuildFailed(f"There is no recipe for this machine's architecture, {arch}.", arch=arch)
    if os.geteuid() != 0:
        process.find("newuidmap")
        user = pwd.getpwuid(os.geteuid()).pw_name
        lines = SUBUID.read_text().splitlines() if SUBUID.exists() else []
        if not any(line.split(":")[0] in (user, str(os.geteuid())) for line in lines):
            raise BuildFailed(
                f"{user} has no subordinate user ids, which building without root needs.",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    layout.make()
    free = shutil.disk_usage(layout.cache).free
    if free < NEEDED_MIB << 20:
        raise DiskFull(
            f"Building an image needs {NEEDED_MIB} MiB, and {layout.cache} has {free >> 20} left.",
            path=str(layout.cache),
        )


class _Build:
    """One run: where it works, and how it says how far it is."""

    def __init__(
        self,
        layout: Layout,
        place: Staging,
        log: bootstrap.Log,
        report: Report,
        source: str,
        chosen: bool,
    ) -> None:
        self.layout = layout
        self.place = place
        self.log = log
        self.report = report
        self.source = source
        self.chosen = chosen
        self.arch = platform.machine()
        self.tree = place.folder / "tree"

    async def run(self, wanted: Mapping[str, recipe.Variant]) -> dict[str, StoredImage]:
        self.say(0, "Asking the mirror")
        await self.bootstrap(
            stock_initrd=any(variant.stock_initrd for variant in wanted.values()),
            packages=sorted({name for variant in wanted.values() for name in variant.packages}),
        )
        # Last the one that may change the tree itself; the others work on a copy.
        order = sorted(wanted.items(), key=lambda item: item[1] is recipe.TRIM)
        images = {}
        for number, (ref, variant) in enumerate(order):

            def say(part: float, message: str, number: int = number) -> None:
                self.say(70 + 30 * (number + part) / len(order), message)

            images[ref] = await self.finish(ref, variant, say, copy=number < len(order) - 1)
        self.say(100, "The image is ready")
        return images

    async def bootstrap(self, *, stock_initrd: bool, packages: Sequence[str] = ()) -> None:
        overlay = base64.b64encode(
            gzip.compress(recipe.overlay("base", self.arch), mtime=0)
        ).decode()
        scripts = [recipe.FETCH.format(packages=" ".join(packages))] if packages else []
        scripts += [recipe.PREPARE, *([recipe.STOCK_INITRD] if stock_initrd else [])]
        hooks = [f'echo {overlay} | base64 -d | tar -xz --no-same-owner -C "$1"']
        hooks += [f'chroot "$1" sh -c {shlex.quote(script)}' for script in scripts]
        steps = bootstrap.Steps()

        def line(text: str) -> None:
            if steps.line(text):
                self.say(70 * steps.fraction, steps.message)

        rootless = os.geteuid() != 0
        argv = recipe.mmdebstrap(
            self.arch, await mirror.find(self.source), "-" if rootless else str(self.tree)
        )
        argv[1:1] = [f"--customize-hook={hook}" for hook in hooks]
        # Kernel packages would run initramfs-tools, for 15 seconds, to make what we do not use.
        env = {"LC_ALL": "C.UTF-8", "INITRD": "No"}
        if not rootless:
            await bootstrap.run(argv, self.log, lock=self.place.lock, line=line, env=env)
            return
        # mmdebstrap's namespace does not contain us, so it cannot reach our folders; a pipe can.
        self.tree.mkdir()
        unpack = ["tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        unpack += ["--exclude=./dev/*", "-C", str(self.tree)]
        reader, writer = os.pipe()
        with open(reader, "rb") as source, open(writer, "wb") as sink:
            async with anyio.create_task_group() as group:
                group.start_soon(self._inside, unpack, source)
                try:
                    await bootstrap.run(
                        argv, self.log, lock=self.place.lock, line=line, env=env, stdout=sink
                    )
                finally:
                    sink.close()

    async def _inside(
        self,
        argv: list[str],
        source: int | IO[bytes] = subprocess.DEVNULL,
        cwd: Path | None = None,
    ) -> None:
        await bootstrap.run(as_root(argv), self.log, lock=self.place.lock, cwd=cwd, stdin=source)

    async def finish(
        self, ref: str, variant: recipe.Variant, say: Callable[[float, str], None], *, copy: bool
    ) -> StoredImage:
        """The image of one variant from the tree of all."""
        say(0.0, "Putting the guest's own files in place")
        tree = self.tree
        if copy:
            tree = self.place.folder / f"tree-{variant.name}"
            await self._inside(["cp", "-a", "--reflink=auto", str(self.tree), str(tree)])
        overlay = self.place.folder / "overlay.tar"
        overlay.write_bytes(recipe.overlay(variant.name, self.arch, variant.files))
        if variant.packages:
            # Maintainer scripts take the environment at its word; this host's TMPDIR is not there.
            clean = ["env", "-i", *(f"{name}={value}" for name, value in recipe.INSIDE.items())]
            await self._inside(["chroot", str(tree), *clean, "sh", "-c", recipe.INSTALL])
        await self._inside(["rm", "-rf", "--one-file-system", str(tree / recipe.DEBS)])
        await self._inside(["tar", "-xf", str(overlay), "--no-same-owner", "-C", str(tree)])
        version = kernel_version(tree)
        result = self.place.folder / "image"
        result.mkdir(mode=0o700)
        with files.translated(result):
            shutil.copyfile(tree / "boot" / f"vmlinuz-{version}", result / store.KERNEL)
            await self.make_initrd(tree, version, variant, result / store.INITRD)
        await self._inside(["sh", "-c", variant.script], cwd=tree)
        say(0.15, "Writing the file system")
        await self.make_disk(tree, result / store.DISK, say)
        say(0.80, "Computing checksums")
        for path in result.iterdir():
            path.chmod(0o444)
        facts = {
            "arch": self.arch,
            "createdAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "suite": recipe.SUITE,
            "variant": variant.name,
            "kernelVersion": version,
            "kernelCommandLine": recipe.command_line(variant, self.arch),
            "agent": True,
            "agentVersion": recipe.AGENT_VERSION,
            "sshPort": recipe.SSH_PORT,
            "diskMib": recipe.DISK_MIB,
        }
        with files.translated(result):
            digest = await anyio.to_thread.run_sync(store.describe, result, facts)
            say(0.95, "Publishing the image")
            # Not cancellable: two renames, and after them the image is there.
            image = await anyio.to_thread.run_sync(
                partial(store.publish, self.layout, ref, result, digest, chosen=self.chosen)
            )
        if copy:
            await self._inside(["rm", "-rf", "--one-file-system", str(tree)])
        return image

    async def make_initrd(
        self, tree: Path, version: str, variant: recipe.Variant, target: Path
    ) -> None:
        if variant.stock_initrd:
            shutil.copyfile(tree / "boot" / f"initrd.img-{version}", target)
            return
        archive = await anyio.to_thread.run_sync(
            initrd.build, tree, version, recipe.ROOT_MODULES, recipe.EARLY_MODULES
        )
        target.write_bytes(archive)

    async def make_disk(self, tree: Path, target: Path, say: Callable[[float, str], None]) -> None:
        raw = target.with_suffix(".raw")
        with raw.open("wb") as file:
            file.truncate(recipe.DISK_MIB << 20)
        # No journal: what it protects from is losing a disk that is thrown away anyway. The file is
        # all holes, so the guest's kernel need not zero inode tables in the background.
        options = ["-q", "-F", "-t", "ext4", "-L", "root", "-m", "0", "-O", "^has_journal"]
        options += ["-E", "nodiscard,assume_storage_prezeroed=1", "-d", str(tree), str(raw)]
        await self._inside([process.find("mke2fs"), *options])
        say(0.45, "Writing the disk image")
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", str(raw), str(target)]
        await bootstrap.run(convert, self.log, lock=self.place.lock)
        raw.unlink()

    def say(self, percentage: float, message: str) -> None:
        self.report(Progress("image", message, int(percentage)))


def kernel_version(tree: Path) -> str:
    """The one kernel in a tree.

    Raises:
        BuildFailed: there is none, or more than one.
    """
    versions = [p.name.removeprefix("vmlinuz-") for p in (tree / "boot").glob("vmlinuz-*")]
    if len(versions) != 1:
        raise BuildFailed(f"Expected one kernel in the tree, found {versions or 'none'}.")
    return versions[0]
