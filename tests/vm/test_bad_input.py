"""What people get wrong, on the real command line: a status, a reason, a hint, nothing left.

All but the last two tests end before there is a machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.host import locks
from sandbox_rpc.protocol import errors
from tests.vm.conftest import MakeHost
from tests.vm.host import Done, Host, wait_for


@pytest.fixture(scope="module")
def bad(make_host: MakeHost) -> Host:
    """A user who gets things wrong."""
    return make_host("bad")


@pytest.fixture(scope="module")
def user(make_host: MakeHost) -> Host:
    """An ordinary one, without an image: it does not come that far."""
    return make_host("bad-user", ordinary=True)


def refused(host: Host, kind: str, *words: str, **options: Any) -> Done:
    """Run a command that must fail with this error, and leave nothing."""
    before = host.names()
    done = host.run(*words, check=False, **options)
    assert_error(done, kind)
    for name in set(host.names()) - set(before):
        assert_quiet(host, name)
    return done


def assert_json(host: Host, kind: str, *words: str) -> None:
    """The same error for programs, as the last line: before it there is progress."""
    done = host.run(*words, "--json", check=False)
    error = json.loads(done.err.splitlines()[-1])
    assert error["data"]["kind"] == kind
    assert error["data"]["hint"]
    assert (error["code"] // 100, "") == (done.status, done.out)


def assert_error(done: Done, kind: str) -> None:
    """Status, message and hint of an error; no traceback, nothing on stdout."""
    (code,) = (code for code, error in errors.ERRORS.items() if errors.kind_of(error) == kind)
    assert (done.status, done.out) == (code // 100, ""), done.err
    lines = done.err.splitlines()
    assert any(line.startswith("error: ") and len(line) > 15 for line in lines), done.err
    assert any(line.startswith("hint: ") and len(line) > 10 for line in lines), done.err
    assert "Traceback" not in done.err
    assert "fault in sandbox" not in done.err


def assert_quiet(host: Host, name: str) -> None:
    """No room, and soon no lock."""
    home = host.home_of(name)
    assert not host.room_of(name).folder.exists()
    wait_for(
        lambda: not (locks.is_held(home.vm_lock) or locks.is_held(home.supervisor_lock)),
        "the supervisor's end",
    )


# Workspaces.


def test_workspace_that_cannot_be_shared(bad: Host) -> None:
    """Missing, a file, nothing, too long; none of them gets a name."""
    folder = bad.workspace("folder")
    (folder / "file").touch()
    (folder / "dangling").symlink_to("nowhere")
    cases = {
        str(folder / "none"): "There is no folder",
        str(folder / "dangling"): "There is no folder",
        str(folder / "file"): "is not a folder",
        str(folder / "file" / "x"): "Not a directory",
        str(folder / ("x" * 300)): "too long",
        "": "No folder is named",
        "/proc/self/fd/0\n\x1b[31m": "There is no folder",
    }
    for path, words in cases.items():
        done = refused(bad, "workspaceRefused", "start", path)
        assert words in done.err
        assert "\x1b" not in done.err
    assert_json(bad, "workspaceRefused", "start", str(folder / "none"))
    assert bad.names() == []


def test_workspace_that_should_not_be_shared(bad: Host) -> None:
    """The machine, the home folder, our own state."""
    link = bad.folder / "work" / "link-to-home"
    link.symlink_to(bad.home)
    for path in ("/", bad.home, link, bad.folder):
        assert "--force" in refused(bad, "workspaceRefused", "start", str(path)).err
    for path in (bad.base, bad.base / "kvm-vms", bad.config_file.parent):
        path.mkdir(exist_ok=True)
        refused(bad, "workspaceRefused", "start", str(path), "--force")
    refused(bad, "workspaceRefused", "start", cwd=bad.home)
    assert bad.names() == []


def test_workspace_that_cannot_be_read(user: Host) -> None:
    """By an ordinary user: the folder, or one above it."""
    closed = user.workspace("closed")
    (closed / "inner").mkdir()
    closed.chmod(0)
    for path in (closed, closed / "inner"):
        refused(user, "workspaceRefused", "start", str(path))
    assert user.names() == []


# Names and options.


def test_name_that_is_none(bad: Host) -> None:
    """Refused before anything is written."""
    for name in ("..", "../x", "a/b", "/", "", "x" * 300, "a b", "-x", "lock"):
        folder = str(bad.folder / "work")
        done = refused(bad, "nameInvalid", "start", folder, f"--name={name}")
        assert len(done.err) < 400
    for command in ("status", "stop", "forget"):
        refused(bad, "nameInvalid", command, "x" * 300)
    assert_json(bad, "nameInvalid", "start", str(bad.folder / "work"), "--name=..")
    assert bad.names() == []


def test_sandbox_that_nobody_knows(bad: Host) -> None:
    """Of every command."""
    for words in (
        ["stop", "nobody"], ["exec", "nobody", "--", "true"], ["console", "nobody"],
        ["forget", "nobody"], ["enter", "nobody"], ["info", "nobody"], ["connect", "nobody"],
    ):  # fmt: skip
        refused(bad, "sandboxNotFound", *words)


def test_unknown_options(bad: Host) -> None:
    """Usage and status 2, as every program has it."""
    for words in (["start", "--nonsense"], ["--nonsense"], ["image", "paint"], ["start", "a", "b"]):
        done = bad.run(*words, check=False)
        assert (done.status, done.out) == (2, "")
        assert "usage:" in done.err
    assert bad.names() == []


@pytest.mark.parametrize(
    "words",
    [["--memory=12"], ["--memory=lots"], ["--cpus=0"], ["--cpus=-1"], ["--disk=1"],
     ["--start-timeout=soon"], ["--accelerator=magic"], ["--image=../../etc"]],
)  # fmt: skip
def test_setting_that_is_none(bad: Host, words: list[str]) -> None:
    """By flag: argparse's status where a choice is wrong, ours elsewhere."""
    done = bad.run("start", str(bad.folder / "work"), *words, check=False)
    assert done.status in (2, 11), done.err
    assert words[0].split("=")[0] in done.err
    assert "Traceback" not in done.err
    assert bad.names() == []


# sandbox.toml.


def test_unparsable_sandbox_toml(bad: Host) -> None:
    """File and line; for a wrong value also the key."""
    folder = bad.workspace("toml")
    file = folder / "sandbox.toml"
    for content, words in (
        ("[memory\n", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        ('\n\nmemory = "lots"\n', "line 3"),
        ("cpus = 'two'\n", "cpus"),
        ("\0", "line 1"),
    ):
        file.write_text(content)
        done = refused(bad, "settingInvalid", "start", str(folder))
        assert str(file) in done.err
        assert words in done.err
    file.write_bytes(b"\xff\xfe")
    assert str(file) in refused(bad, "settingInvalid", "start", str(folder)).err
    file.unlink()
    os.mkfifo(file)
    assert str(file) in refused(bad, "settingInvalid", "start", str(folder)).err
    assert bad.names() == []


# The host.


@pytest.fixture(scope="module")
def bare(bad: Host) -> Path:
    """A PATH with all that is needed but QEMU."""
    folder = bad.folder / "bare"
    folder.mkdir()
    for tool in ("ssh", "ssh-keygen", "ssh-add", "qemu-img", "bwrap", "env", "sh"):
        if real := shutil.which(tool):
            (folder / tool).symlink_to(real)
    return folder


def test_no_qemu(bad: Host, bare: Path) -> None:
    """Says what to install."""
    folder = str(bad.workspace("noqemu"))
    done = refused(bad, "qemuMissing", "start", folder, env={"PATH": str(bare)})
    assert "apt-get install qemu-system" in done.err
    assert_quiet(bad, "sandbox-noqemu")
    assert_json(bad, "qemuMissing", "start", folder, "--qemu", "/nowhere")


def test_qemu_that_is_none(bad: Host) -> None:
    """Set to nothing, to another program, to one that fails, to a text."""
    folder = str(bad.workspace("wrongqemu"))
    text = bad.folder / "text"
    text.write_text("no program")
    text.chmod(0o755)
    for path in ("/nowhere/qemu", "/bin/true", str(text)):
        done = refused(bad, "qemuMissing", "start", folder, "--qemu", path)
        assert path in done.err or os.path.realpath(path) in done.err
    assert_quiet(bad, "sandbox-wrongqemu")


def test_no_right_to_kvm(user: Host) -> None:
    """Where KVM is a must, and the device is missing or not ours."""
    device = Path("/dev/kvm")
    if device.exists():
        mode = device.stat()
        assert not (stat.S_IMODE(mode.st_mode) & 0o006), "everybody may open /dev/kvm here"
    folder = str(user.workspace("kvm"))
    done = refused(user, "kvmUnavailable", "start", folder, "--accelerator", "kvm")
    assert "KVM cannot be used" in done.err


SMALL = """
mount -t tmpfs -o size="$1" none "$2" && ln -s "$3" "$2/kvm-cache" || exit 99
shift 3
"$@"
status=$?
find "$SANDBOX_CACHE_BASE/kvm-vms" -mindepth 1 >&2
exit $status
"""


def in_small_cache(host: Host, size: str, *words: str) -> Done:
    """Run `sandbox WORDS` with a cache on a file system of `size`, in a mount namespace."""
    base = host.folder / "small"
    base.mkdir(exist_ok=True)
    argv = ["unshare", "--mount", "sh", "-c", SMALL, "sh", size, str(base)]
    if os.geteuid() != 0:
        argv[1:1] = ["--user", "--map-root-user"]
    cache = str((host.base / "kvm-cache").resolve())
    return host.call(
        [*argv, cache, *host.program, *words], check=False, env={"SANDBOX_CACHE_BASE": str(base)}
    )


@pytest.mark.parametrize("size", ["4k", "12k", "20k", "28k", "150k"])
def test_disk_full_during_start(bad: Host, size: str) -> None:
    """Wherever it is noticed: the same error, and no room is left."""
    folder = bad.folder / "work" / "full"
    folder.mkdir(exist_ok=True)
    done = in_small_cache(bad, size, "start", "-q", str(folder))
    assert_error(done, "diskFull")
    assert "kvm-vms/" not in done.err.splitlines()[-1]


def test_disk_full_during_build(bad: Host) -> None:
    """Known beforehand, and met in the middle."""
    script = SMALL.replace(' && ln -s "$3" "$2/kvm-cache"', "")
    base = bad.folder / "small"
    base.mkdir(exist_ok=True)
    argv = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if os.geteuid() != 0:
        argv[1:1] = ["--user", "--map-root-user"]
    env = {"SANDBOX_CACHE_BASE": str(base)}
    words = [*bad.program, "image", "build"]
    done = bad.call([*argv, "50m", str(base), "-", *words], check=False, env=env)
    assert_error(done, "diskFull")
    assert "3072 MiB" in done.err

    folder = bad.folder / "full-tools"
    folder.mkdir()
    (folder / "mmdebstrap").write_text("#!/bin/sh\nexec echo x > /dev/full\n")
    (folder / "mmdebstrap").chmod(0o755)
    env = {
        "SANDBOX_CACHE_BASE": str(bad.folder / "middle"),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    done = bad.run("image", "build", check=False, env=env)
    assert_error(done, "diskFull")
    assert list((bad.folder / "middle" / "kvm-cache" / "staging").iterdir()) == []


def test_workspace_without_extended_attributes(bad: Host) -> None:
    """mapped-xattr says before QEMU starts that it cannot be; `none` does not ask for them."""
    folder = bad.workspace("ramfs")
    argv = ["unshare", "--mount", "sh", "-c"]
    script = 'mount -t ramfs none "$1" || exit 99; shift; exec "$@"'
    words = [*bad.program, "start", "-q", str(folder)]
    if os.geteuid() != 0:
        # Only root mounts a ramfs, and the proc of a namespace has no such attributes either.
        script, words[-1] = 'shift; exec "$@"', "/proc/self/task"
    mapped = [*words, "--workspace-security", "mapped-xattr"]
    done = bad.call([*argv, script, "sh", str(folder), *mapped], check=False)
    assert_error(done, "workspaceRefused")
    assert "extended attributes" in done.err
    assert "workspace.security = none" in done.err
    name = bad.names()[-1]
    assert_quiet(bad, name)
    # The same with `none` comes to the next step, which here is to find no QEMU.
    plain = [*words, "--qemu", "/nowhere"]
    done = bad.call([*argv, script, "sh", str(folder), *plain], check=False)
    assert_error(done, "qemuMissing")


# The environment.


def test_home_that_is_no_place(bad: Host) -> None:
    """Unset for a user in no table, a file, read-only: an error where the home is needed."""
    folder = str(bad.workspace("homeless"))
    bare = {"SANDBOX_CACHE_BASE": "", "XDG_CACHE_HOME": ""}
    (bad.folder / "file").touch()
    for home in (str(bad.folder / "file"), "/sys"):
        done = bad.run("start", folder, check=False, env={**bare, "HOME": home})
        assert_error(done, "permissionDenied")
    # Where SANDBOX_CACHE_BASE says where, HOME is not asked.
    env = {"HOME": "", "LC_ALL": "C"}
    assert bad.run("list", "--json", env=env).out == "[]\n"


def test_closed_streams(bad: Host) -> None:
    """Without stdin, stdout, stderr: the same status, no traceback, nothing in the wrong place."""
    folder = str(bad.folder / "none")
    for closing, status in (("<&-", 11), (">&-", 11), ("2>&-", 11), ("<&- >&- 2>&-", 11)):
        argv = ["sh", "-c", f'exec "$@" {closing}', "sh", *bad.program, "start", folder]
        done = bad.call(argv, check=False)
        assert (done.status, done.out) == (status, "")
        assert "Traceback" not in done.err
    argv = ["sh", "-c", 'exec "$@" <&-', "sh", *bad.program, "list", "--json"]
    assert bad.call(argv).out == "[]\n"


def test_reader_that_leaves(bad: Host) -> None:
    """`sandbox … | head` ends without a word."""
    argv = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "sh", *bad.program, "--help"]
    done = bad.call(argv, check=False)
    assert "Traceback" not in done.err
    assert "Exception" not in done.err


# One machine: the longest of all workspaces, with all that options could stumble over.


@pytest.fixture(scope="module")
def deep(bad: Host) -> Iterator[Path]:
    """A workspace with a path of 4000 characters, a comma, a newline and quotes."""
    top = bad.workspace("deep")
    here = Path.cwd()
    try:
        os.chdir(top)
        while (room := 4000 - len(str(Path.cwd())) - 1) > 0:
            name = (",'\"\n $(x)" + "d" * 200)[: min(200, room if room < 200 else 150)]
            Path(name).mkdir()
            os.chdir(name)
        path = Path.cwd()
        Path("from host").write_text("hello\n")
        Path("sandbox.toml").write_text("memory = '3G'\ncpus = 1\n")
    finally:
        os.chdir(here)
    yield path
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def started(bad: Host, deep: Path) -> dict[str, Any]:
    """Started with no stdin, in the locale C, from a home that cannot be written."""
    env = {"LC_ALL": "C", "LANG": "C", "HOME": "/proc"}
    # Boots a kernel: no other test has a use for a template of this size.
    start = [*bad.program, "start", "--json", "--warm", "never", str(deep)]
    argv = ["sh", "-c", 'exec "$@" <&-', "sh", *start]
    value: dict[str, Any] = json.loads(bad.call(argv, env=env, cwd=bad.folder).out)
    return value


def test_deep_workspace(bad: Host, deep: Path, started: dict[str, Any]) -> None:
    """It is shared like any other, and its sandbox.toml could tighten but not widen."""
    assert len(str(deep)) == 4000
    assert started["workspace"] == str(deep)
    done = bad.run("exec", started["name"], "--", "sh", "-c", "cat 'from host'; echo hi > back")
    assert done.out == "hello\n"
    assert (deep / "back").read_text() == "hi\n"
    assert (started["memoryMib"], started["cpus"]) == (2048, 1)
    assert any("memory" in warning for warning in started["warnings"])
    bad.run("stop", started["name"])
    assert_quiet(bad, started["name"])


def test_trusted_widening(bad: Host, deep: Path, started: dict[str, Any]) -> None:
    """After `sandbox trust` it holds, until the file changes; no guest is needed to see it."""
    bad.run("trust", "--yes", str(deep))
    child = bad.popen([*bad.program, "start", str(deep), "--json", "--warm", "never"])
    state = bad.room_of(started["name"]).state
    wait_for(
        lambda: state.exists() and json.loads(state.read_bytes()).get("pid"), "QEMU", seconds=120
    )
    value = json.loads(state.read_bytes())
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (130, b""), err
    assert (value["memoryMib"], value["cpus"]) == (3072, 1)
    assert not any("memory" in warning for warning in value.get("warnings", []))
    assert_quiet(bad, started["name"])
