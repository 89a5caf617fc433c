"""Birth and death of a network process, its forwards, and its walls."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_rpc.network import confine, control, resolver
from sandbox_rpc.network import launch as launch_module
from sandbox_rpc.network.launch import (
    Running,
    Wish,
    attach,
    connect_to_qemu,
    launch,
    listen_on_loopback,
    listen_on_unix,
)
from sandbox_rpc.network.lockdown import MAX_DESCRIPTORS, MAX_FILE
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.network.settings import Forward, Route, Start, dump, parse
from sandbox_rpc.protocol.errors import NetworkFailed
from tests.unit.network.lab import INTERNET, Lab, alive, wait_for


def test_a_successor_takes_the_same_port(guest: Lab) -> None:
    world = guest.world
    ssh = guest.listener()
    port = ssh.getsockname()[1]
    first = guest.netd(Wish(Mode.OPEN), [(ssh, 22)])
    assert guest.knock("127.0.0.1", port, world.host) == "ssh"
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not alive(first.pid), "its death")
    assert first.control.recv(1) == b"", "whoever watches its control socket learns it"
    with world.host.socket() as early:
        # Not refused: the listening socket lives as long as anybody holds it.
        early.connect(("127.0.0.1", port))
        second = guest.netd(Wish(Mode.OPEN), [(ssh, 22)])
        assert second.pid != first.pid
        assert early.recv(100) == b"ssh\n"
    assert guest.knock("127.0.0.1", port, world.host) == "ssh"
    assert guest.knock(INTERNET, 80) == "beyond"


def test_it_ends_with_its_machine_and_not_with_its_starter(guest: Lab) -> None:
    running = guest.netd(Wish(Mode.OFFLINE))
    running.control.close()
    again = attach(guest.control_socket)
    assert again.pid == running.pid
    assert control.call(again.control, "status")[0]["mode"] == "offline"
    guest.qemu.kill()
    wait_for(lambda: not alive(running.pid), "its end")
    assert again.control.recv(1) == b""
    assert "Traceback" not in guest.log.read_text()
    with pytest.raises(NetworkFailed, match="There is no network process"):
        attach(guest.control_socket)


def test_it_ends_when_asked(guest: Lab) -> None:
    running = guest.netd(Wish(Mode.OFFLINE))
    os.kill(running.pid, signal.SIGTERM)
    wait_for(lambda: not alive(running.pid), "its end")
    guest.netd(Wish(Mode.OPEN))
    assert guest.knock(INTERNET, 80) == "beyond", "QEMU takes the next one"


def test_forwards_come_and_go(guest: Lab) -> None:
    world = guest.world
    guest.netd(Wish(Mode.OPEN))
    one = guest.listener()
    address = f"127.0.0.1:{one.getsockname()[1]}"
    guest.ask("forward/add", [one.fileno()], guest_port=3000)
    assert guest.knock("127.0.0.1", one.getsockname()[1], world.host) == "web"
    assert guest.ask("status")["forwards"] == [{"address": address, "guest_port": 3000}]
    with pytest.raises(NetworkFailed, match="already"):
        guest.ask("forward/add", [one.fileno()], guest_port=3001)
    assert guest.running is not None
    _, received = control.call(guest.running.control, "forward/list")
    (fd,) = received
    with socket.socket(fileno=fd) as handed:
        # What a supervisor that adopts the machine holds on to.
        assert handed.getsockname() == one.getsockname()
        assert handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    port = one.getsockname()[1]
    open_one = world.host.socket()
    open_one.connect(("127.0.0.1", port))
    assert open_one.recv(100) == b"web\n"
    one.close()
    assert guest.ask("forward/remove", address=address) == {"removed": True}
    assert guest.knock("127.0.0.1", port, world.host) == "refused"
    assert guest.ask("forward/remove", address=address) == {"removed": False}
    open_one.sendall(b"still here")
    assert open_one.recv(100) == b"still here"
    open_one.close()


def test_a_forward_on_a_unix_socket(guest: Lab, tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 20)
    folder.mkdir()
    with listen_on_unix(folder / "ssh.sock") as listener:
        assert (folder / "ssh.sock").stat().st_mode & 0o777 == 0o600
        guest.netd(Wish(Mode.OFFLINE), [(listener, 22)])
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(20)
            one.connect(_short(folder))
            assert one.recv(100) == b"ssh\n"
        (forward,) = guest.ask("status")["forwards"]
        assert guest.ask("forward/remove", address=forward["address"]) == {"removed": True}


def _short(folder: Path) -> str:
    return f"/proc/self/fd/{os.open(folder, os.O_PATH)}/ssh.sock"


def test_only_loopback_is_forwarded(guest: Lab) -> None:
    guest.netd(Wish(Mode.OPEN))
    with guest.world.host.socket() as wide:
        wide.bind(("0.0.0.0", 0))
        with pytest.raises(NetworkFailed, match="Only loopback"):
            guest.ask("forward/add", [wide.fileno()], guest_port=22)
    assert guest.ask("status")["forwards"] == []


def test_nonsense_on_the_control_socket(guest: Lab) -> None:
    running = guest.netd(Wish(Mode.OPEN))
    for packet in (b"x", b"{}", b"[]", b'{"method": "no/such"}', b'{"method": "forward/add"}',
                   b'{"method": "forward/add", "guest_port": "x"}', b"\xff\xfe\0\0{",
                   '{"method": "status"}'.encode("utf-16"), b"\xfe\xff", b"\xef\xbb\xbf{}",
                   b"[" * 60000, b"1" * 60000):  # fmt: skip
        running.control.send(packet)
        assert "error" in json.loads(running.control.recv(65536))
    with pytest.raises(NetworkFailed):
        control.call(running.control, "forward/add", [0, 1], guest_port=1)
    assert guest.ask("status")["mode"] == "open"


def test_many_clients_do_not_stop_it(guest: Lab) -> None:
    guest.netd(Wish(Mode.OPEN))
    others = []
    for _ in range(40):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.setblocking(False)
        one.connect_ex(str(guest.control_socket))
        others.append(one)
    assert guest.knock(INTERNET, 80) == "beyond"
    assert guest.ask("status")["mode"] == "open"
    for one in others:
        one.close()


def test_a_taken_port_is_known_before_anything_starts() -> None:
    with listen_on_loopback() as first, pytest.raises(OSError, match="in use"):
        listen_on_loopback(first.getsockname()[1])


def test_what_it_says_when_it_does_not_start(tmp_path: Path) -> None:
    ours, qemus = socket.socketpair()
    with ours, qemus, pytest.raises(NetworkFailed, match="names no network"):
        launch(
            Wish(Mode.OPEN, allow=("nonsense",)), peer=ours, listeners=[],
            control_socket=tmp_path / "netd.sock", log=tmp_path / "netd.log",
        )  # fmt: skip
    with pytest.raises(NetworkFailed, match="cannot be reached"):
        connect_to_qemu(tmp_path / "none.sock")


def test_one_that_does_not_come_up_is_ended_with_all_of_its_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on beside the one without a box."""

    def in_vain(_: Path, child: subprocess.Popen[bytes]) -> Running:
        wait_for(lambda: len(members(child.pid)) > 1, "what is in the box")
        raise NetworkFailed("The network process did not come up in time.")

    monkeypatch.setattr(launch_module, "_attach", in_vain)
    ours, qemus = socket.socketpair()
    with qemus:
        qemus.settimeout(30)
        with ours, pytest.raises(NetworkFailed, match="in time"):
            launch(
                Wish(Mode.OPEN, namespace="require"), peer=ours, listeners=[],
                control_socket=tmp_path / "netd.sock", log=tmp_path / "netd.log",
            )  # fmt: skip
        assert qemus.recv(1) == b"", "nobody holds the connection"


def members(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[2]) == group:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("namespace", ["auto", "off"])
def test_its_walls(guest: Lab, namespace: str) -> None:
    running = guest.netd(Wish(Mode.OPEN, namespace=namespace))
    layers = {layer["name"]: layer for layer in guest.ask("status")["layers"]}
    assert layers["namespace"]["active"] == (namespace == "auto")
    assert layers["landlock"]["active"] or "no Landlock" in layers["landlock"]["detail"]
    assert layers["seccomp"]["active"]
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    if namespace == "auto":
        assert int(fields["CapEff"], 16) == 0
        assert int(fields["CapBnd"], 16) == 0
        root = Path(f"/proc/{running.pid}/root")
        seen = {path.name for path in root.iterdir()}
        assert seen <= {"usr", "lib", "lib32", "lib64", "libx32", "program", "dev", "etc", "root",
                        "home", "opt", "nix", "gnu"}  # fmt: skip
        assert not (root / "proc").exists()
        assert not (root / guest.folder.relative_to("/")).exists(), "no workspace, no state"
        assert {path.name for path in (root / "etc").iterdir()} <= {"resolv.conf", "ld.so.cache"}
        for home in ("root", "home"):
            for path in (root / home).rglob("*") if (root / home).exists() else ():
                if path.is_file():
                    prefix = os.path.realpath(sys.base_prefix)
                    assert f"/{path.relative_to(root)}".startswith(prefix)
                    break
    assert guest.knock(INTERNET, 80) == "beyond"
    assert guest.log.read_text() == ""


PROBE = """
import os, resource, socket
from sandbox_rpc.network.lockdown import lock_down
os.umask(0o077)
layers = lock_down(unix={unix}, readable={readable!r})
held = {{name: active for name, active, _ in layers}}
assert held["seccomp"], layers
def tried(what):
    try:
        what()
    except OSError as error:
        return error.errno or 1
    return 0
print([
    tried(lambda: os.execv("/bin/true", ["true"])),
    tried(os.fork),
    tried(lambda: os.kill(os.getppid(), 0)),
    tried(lambda: open("/etc/passwd")),
    tried(lambda: open({folder!r} + "/file")),
    tried(lambda: open({folder!r} + "/new", "w")),
    tried(lambda: os.listdir(os.path.expanduser("~"))),
    tried(lambda: socket.socket(socket.AF_UNIX)),
    tried(lambda: socket.socket(socket.AF_VSOCK)),
    tried(lambda: socket.socket(socket.AF_INET6)),
    tried(lambda: socket.socket(socket.AF_INET)),
    tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
], int(held["landlock"]),
    *(resource.getrlimit(one)[0] for one in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)))
"""


@pytest.mark.parametrize("unix", [False, True])
def test_what_it_forbids_itself(tmp_path: Path, unix: bool) -> None:
    (tmp_path / "file").write_text("x")

    def outcome(readable: tuple[str, ...]) -> str:
        done = subprocess.run(
            [sys.executable, "-c",
             PROBE.format(unix=unix, readable=readable, folder=str(tmp_path))],
            cwd=confine.package_root(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    no_unix = 0 if unix else 1
    limits = f"{MAX_FILE} {MAX_DESCRIPTORS}"
    closed = 13 if outcome(()).split("] ")[1].startswith("1") else 0  # a kernel without Landlock

    def expected(file: int) -> str:
        found = [1, 1, 1, closed, file, closed, closed, no_unix, 1, 1, 0, 0]
        return f"{found} {int(bool(closed))} {limits}"

    assert outcome(()) == expected(closed)
    assert outcome((str(tmp_path),)) == expected(0)


def test_the_command_line_shows_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "runtime", lambda: ["/opt/python"])
    argv = confine.boxed("bwrap", 7, ["/cache/proxy"])
    binds = [argv[place + 1] for place, word in enumerate(argv) if word.startswith("--ro-bind")]
    package = str(confine.package_root() / "sandbox_rpc")
    allowed = {"/usr", "/opt/python", "/cache/proxy", "/etc/ld.so.cache", *confine.SYSTEM,
               *confine.STORES, *(f"{package}/{part}" for part in ("__init__.py", "network",
                                                                   "protocol"))}  # fmt: skip
    assert set(binds) <= allowed
    assert not {"--bind", "--dev-bind", "--proc", "--share-net", "--die-with-parent"} & set(argv)
    assert argv[argv.index("/cache/proxy") + 1] == "/route/0"
    assert "--unshare-net" not in argv, "the host's network is what it is for"
    assert argv[-2:] == ["--config", "7"]


@pytest.mark.parametrize(
    ("prefix", "home", "found"),
    [
        ("/usr", "/home/me", []),
        ("/home/me/.pyenv/versions/3", "/home/me", ["/home/me/.pyenv/versions/3"]),
        ("/home/me", "/home/me", ["/home/me/lib/pythonX"]),
        ("/", "/home/me", ["/lib/pythonX"]),
    ],
)
def test_a_python_of_the_users_own(
    monkeypatch: pytest.MonkeyPatch, prefix: str, home: str, found: list[str]
) -> None:
    monkeypatch.setattr(sys, "base_prefix", prefix)
    monkeypatch.setattr(sys, "base_exec_prefix", prefix)
    monkeypatch.setenv("HOME", home)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = [one.replace("pythonX", version) for one in found]
    assert [one for one in confine.runtime() if one != confine.interpreter()] == wanted


def test_what_it_is_started_with_survives_the_way() -> None:
    start = Start(
        Mode.PROXY, 3, 4, ("10.0.0.0/8",), (5432,), (("10.1.1.1", 443),), (Route("/p/s"),),
        (Forward(5, 22),), True, 1500, "nameserver 1.1.1.1\n", "", ("/etc",),
    )  # fmt: skip
    assert parse(dump(start)) == start
    for data in (b"", b"{}", b'{"mode": "open"}', b"[]"):
        with pytest.raises((ValueError, TypeError, KeyError)):
            parse(data)


def test_the_hosts_name_servers(tmp_path: Path) -> None:
    target = tmp_path / "run" / "resolv.conf"
    target.parent.mkdir()
    link = tmp_path / "resolv.conf"
    link.symlink_to("run/resolv.conf")
    assert resolver.read(link) == ""
    target.write_text(
        "# x\nsearch a.example\nnameserver ::1\nnameserver 127.0.0.53\n  nameserver  9.9.9.9 # y\n"
        "nameserver\nnameserver nonsense\noptions edns0\n"
    )
    assert resolver.read(link) == "nameserver 127.0.0.53\nnameserver 9.9.9.9\n"
    assert resolver.folders(link) == [str(tmp_path), str(target.parent)]


@pytest.mark.parametrize("how", ["written", "replaced", "link"])
def test_news_of_name_servers(tmp_path: Path, how: str) -> None:
    import select

    target = tmp_path / "run" / "resolv.conf"
    target.parent.mkdir()
    target.write_text("nameserver 1.1.1.1\n")
    link = tmp_path / "resolv.conf"
    link.symlink_to(target)
    watch = resolver.Watch(link)

    def is_news() -> bool:
        return bool(select.select([watch], [], [], 0)[0])

    assert not is_news()
    new = tmp_path / "run" / "new"
    if how == "written":
        target.write_text("nameserver 2.2.2.2\n")
    else:
        new.write_text("nameserver 2.2.2.2\n")
    if how == "replaced":
        new.replace(target)
    if how == "link":
        link.unlink()
        link.symlink_to(new)
    assert is_news()
    assert watch.read() == "nameserver 2.2.2.2\n"
    assert not is_news()
    watch.close()
