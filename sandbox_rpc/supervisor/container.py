"""tinyproxy in a container, by podman or docker: the seed's proxy, as a choice.

Weaker than our own: it looks at no ClientHello, follows names to any address, and audits nothing.
Its image is made here, of Debian's own packages and without a registry; it is published on loopback
only, sees the allowlist's folder read-only, and reads it again whenever it changes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from sandbox_rpc.host import files, process
from sandbox_rpc.host.paths import ProxyHome
from sandbox_rpc.host.watch import open_watch
from sandbox_rpc.images import mirror
from sandbox_rpc.network.proxy import tinyproxy
from sandbox_rpc.network.proxy.groups import REGISTRIES, parsed
from sandbox_rpc.network.proxy.hostname import authority
from sandbox_rpc.network.proxy.rules import parse, parse_rule
from sandbox_rpc.network.proxy.settings import Wish
from sandbox_rpc.protocol.errors import (
    BuildFailed,
    NetworkFailed,
    SandboxError,
    ToolMissing,
)
from sandbox_rpc.protocol.progress import Progress, Report, silent

log = logging.getLogger(__name__)

IMAGE = "localhost/sandbox-proxy:1"
SUITE = "trixie"
LIMIT_S = 60.0
BUILD_LIMIT_S = 600.0
VARIANTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ()),
    # Hosts with both versions of control groups, or with low limits on what may be raised.
    (("--runtime", "runc"), ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096")),
)
"""Options before and after `run`, of which the first that works is taken."""
SEALED = (
    "--pull=never", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--label=sandbox-proxy",
)  # fmt: skip


class Container:
    """The container of one machine."""

    def __init__(self, name: str, wish: Wish, build_mirror: str = "") -> None:
        self._home = ProxyHome(Path(wish.folder))
        # Other users of the same docker, and other cache bases, may have a sandbox of this name.
        whose = hashlib.sha256(f"{os.getuid()} {wish.folder}".encode()).hexdigest()[:8]
        self._name = f"sandbox-proxy-{name}-{whose}"
        self.life = 0
        """Counts its starts."""
        self._wish = wish
        self._mirror = build_mirror
        found = shutil.which("podman") or shutil.which("docker")
        self._program = [found] if found else []
        self._options: tuple[str, ...] = ()
        self._is_ready = False

    async def ready(self, report: Report = silent) -> None:
        """Have an image, and know how to run it.

        Raises:
            ToolMissing: neither podman nor docker, or no mmdebstrap, is there.
            BuildFailed: the image cannot be made.
            NetworkFailed: containers do not run here.
        """
        if not self._program:
            raise ToolMissing(
                "Neither podman nor docker is installed.",
                hint="Install podman, or leave proxy.backend at builtin.", tool="podman",
            )  # fmt: skip
        program = self._program[0]
        if (await self._try([program, "image", "inspect", IMAGE])).returncode:
            report(Progress("proxy", "Making the proxy's container image"))
            await self._build(program)
        said = ""
        is_podman = Path(program).name == "podman"
        for before, after in VARIANTS[: 2 if is_podman else 1]:
            trial = [program, *before, "run", "--rm", *SEALED, *after, IMAGE, "tinyproxy", "-v"]
            done = await self._try(trial)
            if not done.returncode:
                self._program, self._options = [program, *before], after
                self._is_ready = True
                return
            said = _last(done)
        raise NetworkFailed(
            f"Containers do not run here: {said}", hint="Leave proxy.backend at builtin."
        )

    async def start(self) -> int:
        """Start it anew; its port on loopback.

        Raises:
            NetworkFailed: it does not start. And as `ready`.
        """
        if not self._is_ready:
            await self.ready()
        self.life += 1
        await self.stop()
        self.write()
        words = [
            *self._program, "run", "--detach", "--rm", "--name", self._name, *SEALED,
            *self._options, "--publish", f"127.0.0.1::{tinyproxy.PORT}",
            "--volume", f"{self._home.container}:{tinyproxy.FOLDER}:ro",
            IMAGE, "tinyproxy", "-d", "-c", f"{tinyproxy.FOLDER}/{tinyproxy.CONFIGURATION}",
        ]  # fmt: skip
        done = await self._try(words)
        if done.returncode:
            raise NetworkFailed(f"The proxy's container does not start: {_last(done)}")
        shown = await self._try([*self._program, "port", self._name, f"{tinyproxy.PORT}/tcp"])
        for line in shown.stdout.decode().splitlines():
            host, _, port = line.strip().rpartition(":")
            if host == "127.0.0.1" and port.isdigit():
                return int(port)
        await self.stop()
        raise NetworkFailed("The proxy's container has no port on loopback.")

    async def follow(self) -> None:
        """Tell it of each change of the allowlist; until cancelled."""
        try:
            with open_watch() as watch:
                watch.add_folder(self._home.folder, written=True)
                while True:
                    changed = {path.name for path, _ in await watch.next()}
                    if changed & {self._home.allowlist.name, self._home.once.name}:
                        await self._reload()
        except OSError as error:
            log.warning("changes of the allowlist are not followed: %s", error)

    async def _reload(self) -> None:
        try:
            self.write()
        except SandboxError as error:
            log.warning("the allowlist does not reach the container: %s", error)
        await self._try([*self._program, "kill", "--signal", "USR1", self._name])

    async def ended(self) -> None:
        """Wait until it runs no more; for ever where nothing can tell."""
        if not self._program:
            await anyio.sleep_forever()
        await self._try([*self._program, "wait", self._name], None)

    async def stop(self) -> None:
        """End it; one that is not there has ended."""
        if self._program:
            await self._try([*self._program, "rm", "--force", self._name])

    def write(self) -> list[str]:
        """Write its filter and configuration; what it cannot do, as sentences."""
        rules = [
            rule
            for path in (self._home.allowlist, self._home.once)
            for rule in parse(path.read_text(errors="replace") if path.exists() else "")[0]
        ]
        groups = parsed()
        groups[REGISTRIES] = [
            parse_rule(authority(one.host, one.port)) for one in self._wish.registries
        ]
        ports = self._wish.ports
        text, problems = tinyproxy.render(rules, groups, ports)
        folder = self._home.container
        with files.translated(folder):
            folder.mkdir(mode=0o755, exist_ok=True)
        # In the container another user reads them; the folder around is 0700.
        files.replace(folder / tinyproxy.FILTER, text, mode=0o644)
        files.replace(folder / tinyproxy.CONFIGURATION, tinyproxy.configuration(ports), mode=0o644)
        return problems

    async def _build(self, program: str) -> None:
        source = await mirror.find(self._mirror)
        if source is None:
            raise BuildFailed(
                "This host's apt knows no Debian to make the container's image of.",
                hint="Set build.mirror.",
            )
        with tempfile.TemporaryDirectory(prefix="sandbox-proxy-") as folder:
            tar = Path(folder, "root.tar")
            # tinyproxy and what it links to: neither a shell nor a package manager.
            words = [
                process.find("mmdebstrap"), "--variant=extract", "--quiet",
                "--include=tinyproxy-bin,libc-bin,base-files,base-passwd",
                *(f"--aptopt={option}" for option in source.apt_options),
                "--customize-hook=mkdir -p \"$1/tmp\" \"$1/etc\" && "
                "echo 'root:x:0:0::/:/bin/false' >\"$1/etc/passwd\"",
                SUITE, str(tar), *source.sources(SUITE),
            ]  # fmt: skip
            done = await self._try(words, BUILD_LIMIT_S)
            if done.returncode:
                raise BuildFailed(f"mmdebstrap failed: {_last(done)}", tool="mmdebstrap")
            done = await self._try([program, "import", str(tar), IMAGE], BUILD_LIMIT_S)
            if done.returncode:
                raise BuildFailed(f"The container's image cannot be stored: {_last(done)}")

    async def _try(
        self, words: Sequence[str], limit_s: float | None = LIMIT_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program; cancelling ends it, and so does the limit, None: none."""
        with anyio.move_on_after(limit_s):
            try:
                return await anyio.run_process(
                    words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
                )
            except OSError as error:
                return subprocess.CompletedProcess(words, 1, b"", str(error).encode())
        return subprocess.CompletedProcess(words, 1, b"", b"it takes too long")


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"status {done.returncode}"
