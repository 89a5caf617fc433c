"""One fake user of this machine: own home, own cache, own everything, and the real command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

import sandbox_rpc
from sandbox_rpc.host import locks, process
from sandbox_rpc.host.paths import Home, Layout, Room

ORDINARY = 12345
"""Uid and gid of the ordinary user: neither root nor the guest's 1000."""
LIMIT_S = 400
"""For any one command; a start under emulation on a busy machine is the longest."""


@frozen
class Done:
    """A command that has ended."""

    status: int
    out: str
    """Standard output; bytes that are not UTF-8 as surrogates."""
    err: str
    raw: bytes
    """Standard output as it came."""


class CommandFailed(AssertionError):
    """A command that should have succeeded did not."""


@define
class Host:
    """One user: root, or the ordinary one; everything it starts ends with `close`."""

    label: str
    folder: Path
    """All its files; 0755, so that another uid gets to its own."""
    uid: int
    """The uid its commands run as."""
    program: list[str]
    """The `sandbox` command."""
    prefix: list[str]
    """What turns a command line into one of this user."""
    extra: dict[str, str] = field(factory=dict)
    """Further environment of every command."""
    _masters: dict[str, tuple[subprocess.Popen[bytes], Path]] = field(factory=dict)

    @property
    def base(self) -> Path:
        return self.folder / "cache"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def config_file(self) -> Path:
        """The user's settings; its folder exists."""
        return self.folder / "config" / "sandbox" / "config.toml"

    @property
    def alias_folder(self) -> Path:
        """SSH_CONFIG_DIR."""
        return self.folder / "config.d"

    @property
    def layout(self) -> Layout:
        return Layout(self.base)

    def home_of(self, name: str) -> Home:
        return self.layout.home(name)

    def room_of(self, name: str) -> Room:
        return self.layout.room(name)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the environment the tests run in but PATH."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.folder / "xdg-cache"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "TMPDIR": str(self.folder / "tmp"),
            "SANDBOX_CACHE_BASE": str(self.base),
            "SSH_CONFIG_DIR": str(self.alias_folder),
            **self.extra,
        }

    def give(self, path: Path) -> Path:
        """Make a path this user's own."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
        return path

    def workspace(self, name: str) -> Path:
        """A new empty folder of this user, to be shared."""
        path = self.folder / "work" / name
        path.mkdir()
        return self.give(path)

    def popen(
        self,
        argv: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        """Start any program as this user; by default without input, output to pipes."""
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **more,
        }
        return subprocess.Popen(
            [*self.prefix, *argv],
            cwd=cwd or self.home,
            env={**self.environment, **(env or {})},
            **options,
        )

    def call(
        self,
        argv: list[str],
        *,
        input: str | bytes | None = None,  # noqa: A002 (as subprocess has it)
        check: bool = True,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = LIMIT_S,
    ) -> Done:
        """Run any program as this user to its end."""
        if isinstance(input, str):
            input = input.encode()  # noqa: A001
        child = self.popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE
        )
        try:
            out, err = child.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            raise CommandFailed(_story(argv, f"not done after {timeout} s", out, err)) from None
        if check and child.returncode != 0:
            raise CommandFailed(_story(argv, f"status {child.returncode}", out, err))
        return Done(
            child.returncode,
            out.decode(errors="surrogateescape"),
            err.decode(errors="surrogateescape"),
            out,
        )

    def run(self, *words: str, **options: Any) -> Done:
        """Run `sandbox WORDS`; options as for `call`."""
        return self.call([*self.program, *words], **options)

    def json(self, *words: str, **options: Any) -> Any:
        """What `sandbox WORDS --json` prints."""
        return json.loads(self.run(*words, "--json", **options).out)

    def start(self, workspace: Path, *words: str) -> dict[str, Any]:
        """Start a workspace's sandbox and return its value."""
        value: dict[str, Any] = self.json("start", str(workspace), *words)
        return value

    def ssh_words(self, name: str, *options: str) -> list[str]:
        """The plain OpenSSH client's command line up to the remote command; it never prompts."""
        config = str(self.home_of(name).ssh_config)
        return ["ssh", "-F", config, "-o", "BatchMode=yes", *options, name]

    def ssh(self, name: str, command: str, *options: str, **more: Any) -> Done:
        """Log in with the plain OpenSSH client and run a command; a login costs 1 to 3 s."""
        return self.call([*self.ssh_words(name, *options), command], **more)

    def sh(self, name: str, script: str, **more: Any) -> Done:
        """Run a shell script in the guest over one shared login: cheap, for looking around."""
        master, path = self._masters.get(name) or (None, Path())
        if master is None or master.poll() is not None:
            path = self.folder / "tmp" / f"mux-{name}"
            path.unlink(missing_ok=True)
            master = self.popen(
                self.ssh_words(name, "-N", "-M", "-S", str(path)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._masters[name] = master, path
            wait_for(path.exists, "the shared login", seconds=60)
        return self.call([*self.ssh_words(name, "-S", str(path)), script], **more)

    def qemu_pid(self, name: str) -> int:
        """QEMU's process, as the lock tells: there must be exactly one."""
        found = locks.holders(self.home_of(name).vm_lock)
        assert len(found) == 1, f"{name}: {found} hold vm.lock"
        return found[0]

    def supervisor_pid(self, name: str) -> int:
        """The supervisor's process, as it greets its clients."""
        path = self.home_of(name).supervisor_socket
        folder = os.open(path.parent, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(f"/proc/self/fd/{folder}/{path.name}")
                found = None
                said = b""
                while found is None:
                    chunk = client.recv(4096)
                    assert chunk, f"the supervisor greeted with {said!r}"
                    said += chunk
                    found = re.search(rb'"pid": ?(\d+)', said)
                return int(found[1])
        finally:
            os.close(folder)

    def names(self) -> list[str]:
        """All sandboxes this user has ever had and not forgotten."""
        folder = self.layout.names
        return sorted(path.parent.name for path in folder.glob("*/record.json"))

    def close(self) -> None:
        """End everything this user has started, by what is known of it, and remove its files."""
        for master, _ in self._masters.values():
            master.kill()
            master.wait()
        with suppress(Exception):
            self.run("stop", "--all", "--force", check=False, timeout=120)
        for name in self.names():
            home = self.home_of(name)
            for lock in (home.supervisor_lock, home.vm_lock):
                end(lock)
        shutil.rmtree(self.folder, ignore_errors=True)


def end(lock: Path) -> None:
    """Kill whoever has a lock's file open, and wait for their end."""
    for pid in locks.holders(lock):
        if (found := process.identify(pid)) is not None:
            found.kill(signal.SIGKILL)
            deadline = time.monotonic() + 30
            while found.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)


def wait_for(
    true: Callable[[], object], what: str, *, seconds: float = 30, pause: float = 0.05
) -> Any:
    """The first true value of a question that is asked again and again, within a limit."""
    limit = time.monotonic() + seconds
    while True:
        if answer := true():
            return answer
        assert time.monotonic() < limit, f"{what} did not come within {seconds} s"
        time.sleep(pause)


def make_top() -> Path:
    """A new folder that every user can reach; short, since sockets will lie in it."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        way = [Path(parent), *Path(parent).parents]
        if all(path.stat().st_mode & 0o001 for path in way):
            top = Path(tempfile.mkdtemp(prefix="sbx-", dir=parent))
            top.chmod(0o755)
            return top
    raise AssertionError("no temporary folder that every user can reach")


def make_host(
    top: Path,
    label: str,
    cache: Path,
    *,
    uid: int | None = None,
    program: list[str],
    own_templates: bool = False,
) -> Host:
    """A user: with `uid` None the one who runs the tests, else another one, which takes root.

    Those who run the tests share one cache, unless they are to have templates of their own.
    """
    folder = top / label
    me = os.geteuid()
    host = Host(label, folder, me if uid is None else uid, program, [])
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for path, mode in (
        (folder / "home", 0o700), (folder / "cache", 0o700), (folder / "config", 0o700),
        (folder / "config" / "sandbox", 0o700), (folder / "config.d", 0o700),
        (folder / "tmp", 0o700), (folder / "work", 0o755), (folder / "home" / ".ssh", 0o700),
    ):  # fmt: skip
        path.mkdir(mode=mode)
        path.chmod(mode)
        host.give(path)
    if host.uid == me and own_templates:
        (host.base / "kvm-cache").mkdir(mode=0o700)
        for name in ("images", "refs"):
            (host.base / "kvm-cache" / name).symlink_to(cache / name)
    elif host.uid == me:
        (host.base / "kvm-cache").symlink_to(cache)
    else:
        host.prefix = _become(host)
        _copy_cache(cache, host)
    return host


def installation(top: Path) -> list[str]:
    """The `sandbox` command for a user who cannot reach ours: a copy that all can read.

    The tests' interpreter may lie in root's home, so this takes one that everybody can run.
    """
    folder = top / "installation"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        real = Path(python).resolve()
        if all(path.stat().st_mode & 0o001 for path in (real, *real.parents)):
            break
    else:
        raise AssertionError("there is no Python that every user can run")
    subprocess.run([str(real), "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    copy_package(site)
    command = folder / "bin" / "sandbox"
    command.write_text(
        f"#!{folder}/bin/python3\n"
        "import sys\n\nfrom sandbox_rpc.cli.main import main\n\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    subprocess.run(
        [str(folder / "bin" / "python3"), "-m", "compileall", "-q", str(site)], check=True
    )
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    return [str(command)]


def copy_package(folder: Path) -> None:
    """Our package and all that it needs, importable from one folder."""
    for source, name in _files_of("sandbox-rpc", set()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, folder / name)
    shutil.copytree(
        Path(sandbox_rpc.__file__).parent,
        folder / "sandbox_rpc",
        ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )


def our_program() -> list[str]:
    """The `sandbox` command of the environment the tests run in."""
    command = Path(sys.executable).parent / "sandbox"
    if command.exists():
        return [str(command)]
    return [sys.executable, "-P", "-m", "sandbox_rpc.cli.main"]


def _files_of(name: str, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """The files of a distribution and of all it needs."""
    if name.lower() in seen:
        return
    seen.add(name.lower())
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # one that only other versions of Python need
    for path in distribution.files or ():
        if ".." not in path.parts and not path.name.endswith((".pyc", ".pth")):
            yield Path(str(distribution.locate_file(path))), str(path)
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement and (found := re.match(r"[\w.-]+", requirement)):
            yield from _files_of(found[0], seen)


def _become(host: Host) -> list[str]:
    number = str(host.uid)
    words = ["setpriv", "--reuid", number, "--regid", number, "--clear-groups", "--"]
    with suppress(KeyError):
        pwd.getpwuid(host.uid)
        return words
    # OpenSSH refuses a user without a name, and the machine's own table is not ours to change.
    passwd, group = host.folder / "passwd", host.folder / "group"
    entry = f"ordinary:x:{number}:{number}::{host.home}:/bin/sh\n"
    passwd.write_text(Path("/etc/passwd").read_text() + entry)
    group.write_text(Path("/etc/group").read_text() + f"ordinary:x:{number}:\n")
    for path in (passwd, group):
        path.chmod(0o644)
    script = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"'
    return [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
        str(passwd), str(group), *words,
    ]  # fmt: skip


def _copy_cache(cache: Path, host: Host) -> None:
    """The default image, as this user's own; holes stay holes."""
    copy = host.base / "kvm-cache"
    copy.mkdir(mode=0o700)
    ref = cache / "refs" / "local" / "debian-13.json"
    digest = json.loads(ref.read_bytes())["digest"].removeprefix("sha256:")
    (copy / "images").mkdir()
    (copy / "refs" / "local").mkdir(parents=True)
    shutil.copy2(ref, copy / "refs" / "local")
    subprocess.run(
        ["cp", "-a", "--reflink=auto", "--sparse=always",
         str(cache / "images" / digest), str(copy / "images")],
        check=True,
    )  # fmt: skip
    subprocess.run(["chown", "-R", f"{host.uid}:{host.uid}", str(copy)], check=True)


def _story(argv: list[str], what: str, out: bytes, err: bytes) -> str:
    texts = [text.decode(errors="backslashreplace")[-4000:] for text in (out, err)]
    return f"{argv}: {what}\n--- stdout\n{texts[0]}\n--- stderr\n{texts[1]}"
