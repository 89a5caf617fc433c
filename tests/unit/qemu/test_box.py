"""The box: its command lines, and the real bubblewrap, kernel and QEMU inside it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from sandbox_rpc.protocol.errors import (
    PermissionDenied,
    QemuMissing,
    SandboxError,
    SettingInvalid,
    ToolMissing,
)
from sandbox_rpc.qemu import confine
from sandbox_rpc.qemu import filter as setuid_filter
from sandbox_rpc.qemu import probe as probing
from sandbox_rpc.qemu.box import (
    SECCOMP,
    Account,
    Box,
    Finding,
    Policy,
    Probe,
    Tools,
    Variant,
    choose,
)
from sandbox_rpc.qemu.view import Mount, View, descriptors
from sandbox_rpc.qemu.wrap import child_pid, wrap

QEMU = os.path.realpath(shutil.which(f"qemu-system-{platform.machine()}") or "")
LIMIT_S = 30
ME = Account(os.geteuid(), os.getegid())
OTHER = Account(12345, 12345)

YES = Finding(True)
GOOD = Probe(
    tools=Tools("/usr/bin/bwrap", "/usr/bin/setpriv", "/usr/bin/unshare"),
    user=YES,
    owner=YES,
    filter=YES,
    seccomp=YES,
    system=(Mount("ro-bind", "/usr", "/usr"),),
    kvm_gid=108,
)
VIEW = View(vm="/v", workspace="/w")


# What is pure


def test_the_command_line_of_an_ordinary_user() -> None:
    box = choose(Policy(), GOOD, owner=OTHER, me=OTHER)
    line = wrap(box, VIEW, ["/usr/bin/qemu", "-S"], info_fd=5, filter_fd=6)
    assert line[: line.index("--dir")] == [
        "/usr/bin/bwrap",
        "--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns",
        "--unshare-pid", "--as-pid-1",
        "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--cap-drop", "ALL",
        "--clearenv", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "LANG", "C",
    ]  # fmt: skip
    assert line[line.index("--chdir") :] == [
        "--chdir", "/vm", "--info-fd", "5", "--seccomp", "6", "--", "/usr/bin/qemu", "-S",
    ]  # fmt: skip


def test_the_command_line_of_root_for_another_user() -> None:
    box = choose(Policy(), GOOD, owner=Account(501, 20), me=Account(0, 0))
    line = wrap(box, attrs.evolve(VIEW, kvm=True), ["/usr/bin/qemu"], info_fd=5, filter_fd=6)
    assert "--unshare-user" not in line
    assert line[line.index("--cap-drop") : line.index("--clearenv")] == [
        "--cap-drop", "ALL",
        "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP",
        "--cap-add", "CAP_DAC_READ_SEARCH",
    ]  # fmt: skip
    assert line[line.index("--") + 1 :] == [
        "/usr/bin/setpriv", "--reuid", "501", "--regid", "20", "--groups", "108",
        "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--",
        "/usr/bin/unshare", "--user", "--map-user=1000", "--map-group=1000", "--",
        "/usr/bin/qemu",
    ]  # fmt: skip
    assert "--clear-groups" in wrap(box, VIEW, ["/usr/bin/qemu"])


def test_the_command_line_without_a_namespace() -> None:
    box = choose(Policy(namespace="off"), GOOD, owner=Account(501, 20), me=Account(0, 0))
    line = wrap(box, attrs.evolve(VIEW, kvm=True), ["/usr/bin/qemu", "-S"], python="/p/python")
    assert line == [
        "/p/python", "-P", confine.__file__, "--filter",
        "--uid", "501", "--gid", "20", "--group", "108", "--", "/usr/bin/qemu", "-S",
    ]  # fmt: skip
    own = choose(Policy(namespace="off", filter="off"), GOOD, owner=OTHER, me=OTHER)
    assert wrap(own, VIEW, ["/q"], python="/p/python")[2:] == [confine.__file__, "--", "/q"]


@pytest.mark.parametrize("me", [Account(0, 0), OTHER])
@pytest.mark.parametrize("owner", [Account(0, 0), OTHER])
def test_nothing_ties_qemu_to_its_parent_and_the_network_is_left_alone(
    me: Account, owner: Account
) -> None:
    line = wrap(choose(Policy(), GOOD, owner=owner, me=me), VIEW, ["/q"])
    assert "--die-with-parent" not in line
    assert "--unshare-net" not in line


def test_a_network_namespace_where_it_is_asked_for() -> None:
    box = choose(Policy(), GOOD, owner=OTHER, me=OTHER)
    assert "--unshare-net" in wrap(box, attrs.evolve(VIEW, network_namespace=True), ["/q"])


def test_what_the_kernel_refuses_is_left_out_and_said() -> None:
    probe = attrs.evolve(GOOD, own_pids=False, sealed=False)
    box = choose(Policy(), probe, owner=OTHER, me=OTHER)
    line = wrap(box, VIEW, ["/q"])
    assert not {"--unshare-pid", "--as-pid-1", "--proc", "--disable-userns"} & set(line)
    assert "the kernel refuses a new /proc" in box.layers[0].detail


def test_no_filter_is_loaded_that_is_switched_off() -> None:
    box = choose(Policy(filter="off"), GOOD, owner=OTHER, me=OTHER)
    assert "--seccomp" not in wrap(box, VIEW, ["/q"], filter_fd=6)


NO_NAMESPACE = attrs.evolve(GOOD, user=Finding(False, "no"), owner=Finding(False, "no"))


@pytest.mark.parametrize(
    ("policy", "probe", "owner", "me", "variant", "account", "changes"),
    [
        (Policy(), GOOD, OTHER, OTHER, Variant.USER, OTHER, False),
        (Policy(), GOOD, Account(0, 0), OTHER, Variant.USER, OTHER, False),
        (Policy(), GOOD, Account(0, 0), Account(0, 0), Variant.USER, Account(0, 0), False),
        (Policy(), GOOD, OTHER, Account(0, 0), Variant.OWNER, OTHER, True),
        (Policy(), NO_NAMESPACE, OTHER, OTHER, Variant.PLAIN, OTHER, False),
        (Policy(), NO_NAMESPACE, OTHER, Account(0, 0), Variant.PLAIN, OTHER, True),
        (Policy(namespace="off"), GOOD, OTHER, OTHER, Variant.PLAIN, OTHER, False),
        (Policy("require", "require", "require"), GOOD, OTHER, OTHER, Variant.USER, OTHER, False),
    ],
)
def test_choice(
    policy: Policy,
    probe: Probe,
    owner: Account,
    me: Account,
    variant: Variant,
    account: Account,
    changes: bool,
) -> None:
    box = choose(policy, probe, owner=owner, me=me)
    assert (box.variant, box.account, box.changes_user) == (variant, account, changes)
    assert box.maps_to_dev == box.has_monitor == (variant is not Variant.PLAIN)


@pytest.mark.parametrize(
    ("layer", "probe", "error"),
    [
        ("namespace", NO_NAMESPACE, PermissionDenied),
        ("namespace", attrs.evolve(NO_NAMESPACE, tools=Tools()), ToolMissing),
        ("filter", attrs.evolve(GOOD, filter=Finding(False, "no")), ToolMissing),
        ("seccomp", attrs.evolve(GOOD, seccomp=Finding(False, "no")), QemuMissing),
    ],
)
def test_a_required_layer_that_cannot_be_had(
    layer: str, probe: Probe, error: type[SandboxError]
) -> None:
    with pytest.raises(error, match="require, but no") as caught:
        choose(Policy(**{layer: "require"}), probe, owner=OTHER, me=OTHER)
    assert f"box.{layer} = auto" in (caught.value.hint or "")
    missing = {one.name: one for one in choose(Policy(), probe, owner=OTHER, me=OTHER).layers}
    assert not missing[layer].active
    assert missing[layer].detail.startswith("no")


def test_a_word_that_is_no_policy() -> None:
    with pytest.raises(SettingInvalid, match=r"box\.filter cannot be 'yes'"):
        choose(Policy(filter="yes"), GOOD, owner=OTHER, me=OTHER)


def test_layers_are_told_in_order_with_what_they_do() -> None:
    layers = choose(Policy(), GOOD, owner=OTHER, me=OTHER).layers
    assert [(one.name, one.active) for one in layers] == [
        ("namespace", True),
        ("filter", True),
        ("seccomp", True),
    ]
    assert "no_new_privs" in layers[0].detail
    off = choose(Policy("off", "off", "off"), GOOD, owner=OTHER, me=OTHER)
    assert [one.active for one in off.layers] == [False, False, False]
    assert "box.filter = off" in off.layers[1].detail
    assert off.seccomp_args == ()


@pytest.mark.parametrize(
    ("policy", "uid", "mapped"),
    [
        (Policy(), 0, False),
        (Policy(filter="off"), 0, True),
        (Policy(filter="off", namespace="off"), 0, True),
        (Policy(filter="off"), 12345, False),
    ],
)
def test_mapped_attributes_only_for_an_unfiltered_root(
    policy: Policy, uid: int, mapped: bool
) -> None:
    box = choose(policy, GOOD, owner=Account(uid, uid), me=Account(uid, uid))
    assert box.needs_mapped == mapped


@pytest.mark.parametrize("closed", [True, False])
def test_pid_from_bubblewrap_without_waiting_for_the_end(closed: bool) -> None:
    r, w = os.pipe()
    try:
        os.write(w, b'{\n    "child-pid": 4711,\n    "ipc-namespace": 1\n}\n')
        if closed:
            os.close(w)
        assert child_pid(r) == 4711
    finally:
        os.close(r)
        if not closed:
            os.close(w)


def test_no_pid_from_a_bubblewrap_that_failed() -> None:
    r, w = os.pipe()
    os.close(w)
    try:
        with pytest.raises(ValueError, match="Expecting value"):
            child_pid(r)
    finally:
        os.close(r)


# What is real


@attrs.frozen
class Case:
    """Somebody who opens somebody's folder."""

    me: Account
    owner: Account
    policy: Policy = attrs.field(factory=Policy)


CASES = {"mine": Case(ME, ME), "mine, plain": Case(ME, ME, Policy(namespace="off"))}
if ME.uid == 0:
    CASES |= {
        "ordinary user": Case(OTHER, OTHER),
        "root, another's": Case(ME, OTHER),
        "root, another's, plain": Case(ME, OTHER, Policy(namespace="off")),
    }
BOXED = [name for name, case in CASES.items() if case.policy.namespace != "off"]

boxed = pytest.mark.parametrize("name", BOXED)
all_cases = pytest.mark.parametrize("name", list(CASES))


@pytest.fixture(scope="module")
def probe() -> Probe:
    return probing.probe(QEMU)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can pass through; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="box-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@attrs.frozen
class Stage:
    """A box and a view with real folders."""

    case: Case
    box: Box
    view: View

    @property
    def vm(self) -> Path:
        return Path(self.view.vm)

    @property
    def workspace(self) -> Path:
        return Path(self.view.workspace)


def stage(name: str, probe: Probe, place: Path, workspace: str = "workspace") -> Stage:
    case = CASES[name]
    box = choose(case.policy, probe, owner=case.owner, me=case.me)
    folder = place / workspace
    folder.mkdir(parents=True)
    os.chown(folder, case.owner.uid, case.owner.gid)
    vm = place / "vm"
    vm.mkdir(mode=0o700)
    os.chown(vm, box.account.uid, box.account.gid)
    return Stage(case, box, View(vm=str(vm), workspace=str(folder)))


@attrs.frozen
class Running:
    """A program in a box."""

    started: subprocess.Popen[bytes]
    """The monitor, or in the plain variant the program itself."""
    pid: int
    pidfd: int
    log: Path

    def ended(self, limit_s: float = LIMIT_S) -> bool:
        return bool(select.select([self.pidfd], [], [], limit_s)[0])


Argv = Callable[[dict[str, str]], list[str]]


@contextmanager
def running(on: Stage, argv: Argv, *keep: int) -> Iterator[Running]:
    """Start what `argv` makes of the places; whatever happens, it is ended on the way out."""
    with ExitStack() as stack:
        r, w = os.pipe()
        stack.callback(os.close, r)
        told = stack.enter_context(os.fdopen(w, "wb"))
        filter_fd = setuid_filter.descriptor()
        stack.callback(os.close, filter_fd)
        opened = stack.enter_context(descriptors(on.view)) if not on.box.has_monitor else {}
        line = wrap(
            on.box, on.view, argv(on.box.places(on.view, opened)), info_fd=w, filter_fd=filter_fd
        )
        other = on.case.me != ME
        log = on.vm.with_name("log")
        with log.open("wb") as output:
            started = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=[*keep, *([w, filter_fd] if on.box.has_monitor else opened.values())],
                start_new_session=True, cwd=None if other else on.vm,
                user=on.case.me.uid if other else None,
                group=on.case.me.gid if other else None,
                extra_groups=[] if other else None,
            )  # fmt: skip
        stack.callback(end, started)
        told.close()
        try:
            pid = child_pid(r) if on.box.has_monitor else started.pid
        except ValueError:
            pytest.fail(log.read_text())
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            # It has ended already, as short programs do; its monitor is our child and still there.
            pidfd = os.pidfd_open(started.pid)
        stack.callback(os.close, pidfd)
        stack.callback(kill, pidfd)
        yield Running(started, pid, pidfd, log)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(LIMIT_S)


def kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], LIMIT_S)


def shell(on: Stage, script: str) -> list[str]:
    """What a script in the box prints; the workspace is $W there."""

    def argv(places: dict[str, str]) -> list[str]:
        return ["/bin/sh", "-c", f"W=$1\n{script}", "sh", places[on.view.workspace]]

    with running(on, argv) as sh:
        assert sh.started.wait(LIMIT_S) == 0, sh.log.read_text()
        return sh.log.read_text().splitlines()


@boxed
def test_only_its_own_files_are_visible(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    (on.workspace / "mine").write_text("")
    system = {Path(mount.target).name for mount in probe.system}
    assert set(shell(on, "ls -A /")) == {
        *system, "dev", "etc", "proc", "tmp", "vm", "workspace"
    }  # fmt: skip
    outside = f"{place} {Path.home()} /root /home /etc/passwd /run /sys"
    assert shell(on, f"ls -A /workspace; ls -d {outside} 2>/dev/null || :") == ["mine"]
    assert shell(on, "pwd; ls -A /vm /tmp; echo $HOME") == ["/vm", "/tmp:", "", "/vm:", ""]
    assert not set(shell(on, "ls -A /etc")) - {
        "alternatives", "host.conf", "hosts", "ld.so.cache", "nsswitch.conf", "qemu", "resolv.conf"
    }  # fmt: skip


@boxed
def test_it_reads_the_resolvers_configuration(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    assert shell(on, "cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text().splitlines()


@boxed
def test_it_writes_its_folder_the_workspace_and_nothing_else(
    name: str, probe: Probe, place: Path
) -> None:
    on = stage(name, probe, place)
    said = shell(
        on,
        "for f in /vm /workspace /tmp / /usr /etc; do touch $f/new 2>/dev/null && echo $f; done; :",
    )
    assert said == ["/vm", "/workspace", "/tmp"]


@boxed
def test_files_are_devs_inside_and_the_owners_outside(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    said = shell(on, "id -u; id -g; touch $W/new; stat -c '%u %g' $W $W/new /vm")
    assert said == ["1000", "1000", "1000 1000", "1000 1000", "1000 1000"]
    new = (on.workspace / "new").stat()
    assert (new.st_uid, new.st_gid) == (on.case.owner.uid, on.case.owner.gid)


@all_cases
def test_files_belong_to_the_owner(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    shell(on, "touch $W/new vm-file")
    assert {(one.stat().st_uid, one.stat().st_gid)
            for one in (on.workspace / "new", on.vm / "vm-file")} == {
        (on.case.owner.uid, on.case.owner.gid)
    }  # fmt: skip


@all_cases
def test_it_holds_no_privilege(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    status = dict(
        line.split(":\t", 1)
        for line in shell(on, "exec cat /proc/self/status")
        if line.startswith(("Cap", "NoNewPrivs", "Seccomp:", "Groups"))
    )
    kinds = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
    assert {int(status[one], 16) for one in kinds} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    if on.case.me != ME or on.box.changes_user:
        assert status["Groups"].split() in ([], ["1000"])


def test_no_new_privs_does_not_depend_on_the_filter(probe: Probe, place: Path) -> None:
    on = stage("mine, plain", probe, place)
    off = Policy(namespace="off", filter="off")
    on = attrs.evolve(on, box=choose(off, probe, owner=ME, me=ME))
    status = shell(on, "exec cat /proc/self/status")
    assert {"NoNewPrivs:\t1", "Seccomp:\t0", f"CapEff:\t{0:016x}"} <= set(status)


@all_cases
def test_the_filter_holds_inside(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    said = shell(
        on,
        r"""
        cd "$W"; touch file; mkdir folder
        chmod u+s file 2>/dev/null || echo refused
        chmod g+s folder && echo setgid
        perl -MFcntl -e 'sysopen(F, "new", O_CREAT | O_WRONLY, 04755) or print $! + 0, "\n"'
        mknod -m 4644 fifo p 2>/dev/null || echo refused
        perl -e 'my ($f, $how) = ("file", "\0" x 24);
                 syscall(437, -100, $f, $how, 24) < 0 and print $! + 0'
        """,
    )
    assert said == ["refused", "setgid", str(errno.EPERM), "refused", str(errno.ENOSYS)]
    modes = {one.name: one.lstat().st_mode for one in on.workspace.iterdir()}
    assert "new" not in modes
    assert not any(mode & stat.S_ISUID for mode in modes.values())
    assert modes["folder"] & stat.S_ISGID


@boxed
def test_other_processes_can_neither_be_seen_nor_signalled(
    name: str, probe: Probe, place: Path
) -> None:
    on = stage(name, probe, place)
    bystander = subprocess.Popen(
        ["sleep", str(LIMIT_S)],
        user=on.box.account.uid if ME.uid == 0 else None,
        group=on.box.account.gid if ME.uid == 0 else None,
    )
    try:
        said = shell(
            on, f"kill -9 {bystander.pid} 2>&1; kill -9 -1; cd /proc; ls -d [0-9]*; echo $$"
        )
        assert "No such process" in said[0]
        assert said[-1] == "1"
        assert not set(said[1:-1]) & {str(bystander.pid), str(os.getpid())}
        assert bystander.poll() is None
    finally:
        end(bystander)


@boxed
def test_no_pid_namespace_where_there_cannot_be_one(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, attrs.evolve(probe, own_pids=False), place)
    said = shell(on, f"id -u; touch $W/new; ls -d /proc/{os.getpid()}; echo x >/proc/self/comm; :")
    assert said[:2] == ["1000", f"/proc/{os.getpid()}"]
    assert (on.workspace / "new").stat().st_uid == on.case.owner.uid
    outside = f"/proc/{os.getpid()}/root" + "/etc/passwd"
    assert shell(on, f"cat {outside} 2>/dev/null || echo closed") == ["closed"]


@boxed
@pytest.mark.parametrize(
    "workspace",
    [
        "a,b,,c",
        "line\nbreak",
        "'\"`$(id)\\",
        "-rf --",
        " blank ",
        os.fsdecode(b"not utf-8 \xff\xfe"),
        "x" * 255,
    ],
)
def test_odd_names(name: str, workspace: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place, workspace)
    (on.workspace / "in").write_text("from outside\n")
    assert shell(on, "cat $W/in; echo from inside >$W/out") == ["from outside"]
    assert (on.workspace / "out").read_text() == "from inside\n"


@boxed
def test_a_path_as_long_as_they_come(name: str, probe: Probe, place: Path) -> None:
    names = [str(place), *["d" * 199] * 20]
    while len("/".join(names)) > 4080 - 2:
        names.pop()
    names.append("e" * (4080 - 1 - len("/".join(names))))
    long = "/".join(names[1:])
    on = stage(name, probe, place, long)
    assert len(on.view.workspace) == 4080
    shell(on, "echo from inside >$W/out")
    assert (on.workspace / "out").read_text() == "from inside\n"


@boxed
def test_a_mask_hides_and_cannot_be_moved_away(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    state = on.workspace / ".cache" / "sandbox"
    state.mkdir(parents=True)
    (state / "secret").write_text("secret")
    (state.parent / "other").write_text("other")
    for one in (state.parent, state, state / "secret"):
        os.chown(one, on.case.owner.uid, on.case.owner.gid)
    on = attrs.evolve(on, view=attrs.evolve(on.view, masks=(".cache/sandbox",)))
    said = shell(
        on,
        """
        cd /workspace; ls .cache .cache/sandbox
        touch .cache/sandbox/new 2>/dev/null || echo read-only
        mv .cache aside 2>/dev/null || echo held
        rm -rf .cache/sandbox 2>/dev/null || echo kept
        """,
    )
    assert said == [
        ".cache:", "other", "sandbox", "", ".cache/sandbox:", "read-only", "held", "kept"
    ]  # fmt: skip
    assert (state / "secret").read_text() == "secret"


@all_cases
def test_image_files_are_read_only(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    closed = place / "cache"
    closed.mkdir(mode=0o700)
    disk = closed / "disk.qcow2"
    disk.write_text("disk\n")
    disk.chmod(0o444)
    os.chown(closed, on.case.me.uid, on.case.me.gid)
    on = attrs.evolve(
        on,
        view=attrs.evolve(on.view, files=(Mount("ro-bind", str(disk), "/image/disk.qcow2"),)),
    )

    def argv(places: dict[str, str]) -> list[str]:
        return ["/bin/sh", "-c", 'cat "$1"; echo x 2>/dev/null >"$1"; :', "sh", places[str(disk)]]

    with running(on, argv) as sh:
        assert sh.started.wait(LIMIT_S) == 0
        assert sh.log.read_text().splitlines()[0] == "disk"
    if on.box.has_monitor or on.box.changes_user:
        assert disk.read_text() == "disk\n"


@boxed
def test_no_more_user_namespaces_inside(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    said = shell(on, "unshare --user true 2>/dev/null && echo made || echo refused")
    assert said == ["refused" if on.box.variant is Variant.USER else "made"]


def test_an_inner_abort_ends_process_1(probe: Probe, place: Path) -> None:
    on = stage("mine", probe, place)
    with running(on, lambda _: ["/usr/bin/perl", "-MPOSIX", "-e", "POSIX::abort()"]) as perl:
        assert perl.ended()


def test_plain_fails_with_a_reason(probe: Probe, place: Path) -> None:
    on = stage("mine, plain", probe, place)
    with running(on, lambda _: ["/nowhere/qemu"]) as process:
        assert process.started.wait(LIMIT_S) == confine.FAILED
        assert "/nowhere/qemu: " in process.log.read_text()


# A real QEMU


def qemu(on: Stage, *options: str) -> Argv:
    return lambda _: [
        QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-S",
        "-qmp", "unix:qmp.sock,server=on,wait=off", *on.box.seccomp_args, *options,
    ]  # fmt: skip


def ask(on: Stage, process: Running, *commands: str) -> list[dict[str, Any]]:
    """QMP over the socket that QEMU made by its relative name, from outside."""
    deadline = time.monotonic() + LIMIT_S
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_S)
        while True:
            try:
                connection.connect(str(on.vm / "qmp.sock"))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert not process.ended(0.01), process.log.read_text()
                assert time.monotonic() < deadline
        with connection.makefile("rw") as stream:
            stream.readline()
            answers = []
            for command in ("qmp_capabilities", *commands):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                answers.append(json.loads(stream.readline()))
    return answers[1:]


@contextmanager
def locked(place: Path) -> Iterator[tuple[Path, int]]:
    """A lock held by one descriptor, to be inherited; closed at the end where still open."""
    path = place / "vm.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield path, fd
    finally:
        with suppress(OSError):
            os.close(fd)


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@all_cases
@pytest.mark.parametrize("way", ["SIGTERM", "SIGKILL", "quit"])
def test_the_lock_lives_as_long_as_qemu(name: str, way: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    with locked(place) as (lock, fd), running(on, qemu(on), fd) as process:
        os.close(fd)
        assert ask(on, process, "query-status")[0]["return"]["status"] == "prelaunch"
        assert is_held(lock)
        if way == "quit":
            ask(on, process, "quit")
        else:
            os.kill(process.pid, signal.Signals[way])
        assert process.ended()
        # Also while the monitor has not been waited for: it never held the lock.
        assert not is_held(lock)
        status = process.started.wait(LIMIT_S)
        killed = 128 + signal.SIGKILL if on.box.has_monitor else -signal.SIGKILL
        assert status == (killed if way == "SIGKILL" else 0)


@boxed
def test_killing_the_monitor_leaves_qemu_and_its_lock(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    with locked(place) as (lock, fd), running(on, qemu(on), fd) as process:
        os.close(fd)
        ask(on, process)
        process.started.kill()
        process.started.wait(LIMIT_S)
        assert ask(on, process, "query-status")[0]["return"]["status"] == "prelaunch"
        assert is_held(lock)
        os.kill(process.pid, signal.SIGTERM)
        assert process.ended()
        assert not is_held(lock)


@all_cases
def test_killing_the_starter_leaves_qemu_and_its_lock(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place)
    r, w = os.pipe()
    with locked(place) as (lock, fd), os.fdopen(r) as told:
        starter = os.fork()
        if starter == 0:
            # Killed where it stands, so nothing that would end QEMU on the way out runs.
            with suppress(BaseException), running(on, qemu(on), fd) as process:
                ask(on, process)
                os.write(w, f"{process.started.pid} {process.pid}\n".encode())
                signal.pause()
            os._exit(1)
        os.close(w)
        os.close(fd)
        monitor, pid = map(int, told.readline().split())
        pidfds = [os.pidfd_open(one) for one in {monitor, pid}]
        try:
            os.kill(starter, signal.SIGKILL)
            os.waitpid(starter, 0)
            process = Running(None, pid, pidfds[-1], on.vm.with_name("log"))  # type: ignore[arg-type]
            assert ask(on, process, "query-status")[0]["return"]["status"] == "prelaunch"
            assert is_held(lock)
        finally:
            for pidfd in pidfds:
                kill(pidfd)
                os.close(pidfd)
        assert not is_held(lock)


@all_cases
def test_a_machine_with_a_shared_folder_runs(name: str, probe: Probe, place: Path) -> None:
    on = stage(name, probe, place, "a,b\nc")

    def argv(places: dict[str, str]) -> list[str]:
        return [
            QEMU, "-accel", "tcg,tb-size=32", "-machine", "pc" if X86_64 else "virt", "-m", "64",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-fsdev", f"local,id=ws,path={places[on.view.workspace]},security_model=none",
            "-device", "virtio-9p-pci,fsdev=ws,mount_tag=workspace",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
            "-qmp", "unix:qmp.sock,server=on,wait=off", *SECCOMP,
        ]  # fmt: skip

    with running(on, argv) as process:
        assert ask(on, process, "query-status")[0]["return"]["status"] == "running"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{on.case.owner.uid}\t" in status
        ask(on, process, "quit")
        assert process.ended()


X86_64 = platform.machine() == "x86_64"
