"""The guest's agent, run by the host's perl on a terminal in place of its port.

Below SANDBOX_AGENT_ROOT it writes files for real; what would change the running system it only
records in `actions`.
"""

from __future__ import annotations

import base64
import os
import select
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_rpc.images.recipe import AGENT

LIMIT_S = 20.0
CREDENTIAL = "run/credentials/@system/sandbox.identity"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def document(**fields: str) -> str:
    return "".join(f"{name} {b64(value)}\n" for name, value in fields.items())


class Guest:
    """One agent, its port and its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self.slave = slave
        self.rest = b""
        self.reachable = False
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        self.notify.setblocking(False)
        self.process: subprocess.Popen[bytes] | None = None

    def boot(self, identity: str | None = None, *, patience: str | None = None) -> None:
        if identity is not None:
            path = self.root / CREDENTIAL
            path.parent.mkdir(parents=True)
            path.write_text(identity)
        perl = shutil.which("perl")
        assert perl is not None
        self.process = subprocess.Popen(
            [perl, str(AGENT)],
            stdin=subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "SANDBOX_AGENT_PORT": self.port,
                "SANDBOX_AGENT_ROOT": str(self.root),
                "NOTIFY_SOCKET": str(self.root / "notify"),
                **({} if patience is None else {"SANDBOX_AGENT_PATIENCE": patience}),
            },
        )

    def send(self, data: str | bytes) -> None:
        view = memoryview(data.encode() if isinstance(data, str) else data)
        while view:
            view = view[os.write(self.master, view[:4096]) :]

    def line(self) -> list[str]:
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.master], [], [], LIMIT_S)
            assert ready, f"the agent says nothing; so far {self.rest!r}"
            self.rest += os.read(self.master, 65536)
        line, _, self.rest = self.rest.partition(b"\n")
        words = line.decode().split(" ")
        if words == ["*", "reachable"]:
            # Before the identity is complete; what each test waits for comes later.
            self.reachable = True
            return self.line()
        return [*words[:2], *(base64.b64decode(word).decode() for word in words[2:])]

    def ask(self, verb: str, argument: str | None = None, number: str = "7") -> list[str]:
        self.send(f"{number} {verb}{'' if argument is None else ' ' + b64(argument)}\n")
        return self.line()

    def identify(self, identity: str) -> list[str]:
        """Hand an identity over; the steps it came to, each of which took some time."""
        self.send(f"7 identity {b64(identity)}\n")
        number, verdict, spent = self.line()
        assert (number, verdict) == ("7", "ok")
        assert self.reachable
        times = dict(line.split("=") for line in spent.splitlines())
        assert all(float(seconds) >= 0 for seconds in times.values())
        return list(times)

    def fields(self) -> dict[str, str]:
        name, verdict, text = self.ask("status")
        assert (name, verdict) == ("7", "ok")
        return dict(line.split("=", 1) for line in text.splitlines())

    def actions(self) -> list[str]:
        path = self.root / "actions"
        return path.read_text().splitlines() if path.exists() else []

    def notified(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.notify.recv(1000).decode())
            except BlockingIOError:
                return found

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
        self.notify.close()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A guest's root as the image has it, as far as the agent looks; not booted."""
    for name in (
        "etc/ssh", "etc/security", "etc/systemd", "home/dev/workspace", "proc/sys/kernel", "run",
    ):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ndev:x:1000:1000::/home/dev:\n")
    (tmp_path / "etc/group").write_text("root:x:0:\ndev:x:1000:\n")
    (tmp_path / "proc/sys/kernel/arch").write_text("x86_64\n")
    (tmp_path / "proc/uptime").write_text("12.34 20.00\n")
    guest = Guest(tmp_path)
    yield guest
    guest.end()


def test_hello_and_status_before_an_identity(guest: Guest) -> None:
    guest.boot()
    star, word, text = guest.line()
    assert (star, word) == ("*", "hello")
    assert text.splitlines()[:3] == ["version=1", "state=waiting", "message="]
    assert guest.fields() == {
        "version": "1", "state": "waiting", "message": "", "uptime": "12.34"
    }  # fmt: skip
    assert guest.notified() == []


def test_ping(guest: Guest) -> None:
    guest.boot()
    guest.line()
    assert guest.ask("ping", number="a.b-c_9") == ["a.b-c_9", "ok"]


@pytest.mark.parametrize(
    ("line", "name", "message"),
    [
        ("\x00\xff\x01", "?", "not a line of sandbox-agent/1"),
        (" ping", "?", "not a line of sandbox-agent/1"),
        ("a/b ping", "?", "not a line of sandbox-agent/1"),
        ("x" * 65 + " ping", "?", "not a line of sandbox-agent/1"),
        ("7", "7", "unknown verb"),
        ("7 dance", "7", "unknown verb"),
        ("7 ping a b", "7", "unknown verb"),
        ("7 ping $(id)", "7", "the argument is not base64"),
        ("7 ping ***", "7", "the argument is not base64"),
        ("7 ping abc", "7", "the argument is not base64"),
        ("7 time " + b64("yesterday"), "7", "not a time"),
        ("7 time " + b64("-1"), "7", "not a time"),
    ],
)
def test_a_malformed_line_is_answered_and_the_next_one_works(
    guest: Guest, line: str, name: str, message: str
) -> None:
    guest.boot()
    guest.line()
    guest.send(line.encode("latin-1") + b"\n")
    assert guest.line() == [name, "error", message]
    assert guest.ask("ping") == ["7", "ok"]


def test_a_line_without_end_is_dropped_and_the_next_one_works(guest: Guest) -> None:
    guest.boot()
    guest.line()
    for _ in range(5):
        guest.send(b"x" * (1 << 18))
    guest.send("\n")
    assert guest.line() == ["?", "error", "the line is too long"]
    assert guest.ask("ping") == ["7", "ok"]


def test_lines_come_in_pieces_and_together(guest: Guest) -> None:
    guest.boot()
    guest.line()
    guest.send("1 pi")
    guest.send("ng\r\n2 ping\n\n3 p")
    guest.send("ing\n")
    assert [guest.line() for _ in range(3)] == [["1", "ok"], ["2", "ok"], ["3", "ok"]]


IDENTITY = document(
    entropy="e" * 64,
    time="1795467863.5",
    hostname="sandbox-demo",
    machine_id="0123456789abcdef0123456789abcdef",
    ssh_host_ed25519_key=KEY,
    authorized_keys="ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n",
    environment='SANDBOX_CONTAINER=sandbox-demo\nhttp_proxy=http://10.0.2.100:8888\nODD=a"b%c\n',
    workspace="trans=virtio,cache=mmap,directio",
    persist="trans=virtio,cache=mmap\n.vscode-server\n.cache/pip",
    a_key_of_the_future="ignored",
)


def test_a_cold_boot_applies_the_credential_and_says_ready(guest: Guest) -> None:
    guest.boot(IDENTITY)
    assert guest.line()[:2] == ["*", "hello"]
    assert guest.line() == ["*", "ready"]
    assert guest.reachable
    assert guest.fields()["state"] == "ready"
    assert guest.notified() == ["READY=1"]
    assert guest.read("etc/hostname") == "sandbox-demo\n"
    assert guest.read("etc/machine-id") == "0123456789abcdef0123456789abcdef\n"
    assert guest.read("etc/ssh/ssh_host_ed25519_key") == KEY
    assert guest.read("home/dev/.ssh/authorized_keys").count("ssh-ed25519") == 2
    assert "http_proxy=http://10.0.2.100:8888\n" in guest.read("etc/environment")
    assert '"ODD=a\\"b%%c"' in guest.read("etc/systemd/system.conf.d/50-sandbox.conf")
    assert guest.read("etc/resolv.conf") == "nameserver 10.0.2.3\n"
    assert guest.actions()[:5] == [
        "entropy 64",
        "time 1795467863 500000000",
        "hostname sandbox-demo",
        "network router=10.0.2.2",
        "mount workspace trans=virtio,cache=mmap,directio",
    ]
    assert guest.actions()[5:8] == [
        "mount persist trans=virtio,cache=mmap",
        "bind .vscode-server",
        "bind .cache/pip",
    ]


def test_secrets_are_readable_by_their_owner_only(guest: Guest) -> None:
    guest.boot(IDENTITY)
    guest.line()
    guest.line()
    for name, mode in (
        ("etc/ssh/ssh_host_ed25519_key", 0o600),
        ("home/dev/.ssh/authorized_keys", 0o600),
        ("home/dev/.ssh", 0o700),
        ("etc/environment", 0o644),
    ):
        assert stat.S_IMODE((guest.root / name).stat().st_mode) == mode, name


def test_the_same_document_by_the_port_after_a_restore(guest: Guest) -> None:
    guest.boot()
    guest.line()
    assert guest.notified() == []
    assert guest.identify(IDENTITY)
    assert guest.fields()["state"] == "ready"
    assert guest.notified() == ["READY=1"]
    assert guest.read("etc/hostname") == "sandbox-demo\n"
    assert guest.identify(document(hostname="second"))
    assert guest.read("etc/hostname") == "second\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostname", "a b"),
        ("hostname", "../x"),
        ("machine_id", "short"),
        ("time", "now"),
        ("uid", "0"),
        ("uid", "dev"),
        ("router", "gateway"),
        ("dns", "10.0.2.3; reboot"),
    ],
)
def test_a_field_that_makes_no_sense_fails_the_boot_and_says_which(
    guest: Guest, field: str, value: str
) -> None:
    guest.boot(document(**{field: value}))
    guest.line()
    star, word, message = guest.line()
    assert (star, word) == ("*", "failed")
    assert message.startswith("network: " if field in ("router", "dns") else f"{field}: ")
    assert not guest.reachable
    assert guest.fields()["state"] == "failed"
    assert guest.notified() == []
    assert guest.identify(IDENTITY)
    assert guest.fields() | {"uptime": ""} == {
        "version": "1", "state": "ready", "message": "", "uptime": ""
    }  # fmt: skip


def test_a_failed_identity_by_the_port_is_an_error_answer(guest: Guest) -> None:
    guest.boot()
    guest.line()
    assert guest.ask("identity", document(machine_id="x")) == [
        "7", "error", "machine_id: not a machine id"
    ]  # fmt: skip
    assert guest.fields()["message"] == "machine_id: not a machine id"


def test_a_guest_without_router_and_name_server(guest: Guest) -> None:
    guest.boot(document(router="", dns=""))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert "nameserver" not in guest.read("etc/resolv.conf")
    assert "network router=" in guest.actions()


def test_without_a_workspace_nothing_is_mounted(guest: Guest) -> None:
    guest.boot(document(hostname="x"))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert not [action for action in guest.actions() if action.startswith("mount")]


def test_what_outlives_a_stop_does_not_hold_up_a_start(guest: Guest) -> None:
    """The guest of the life before may have put anything there."""
    (guest.root / "home/dev/.cache").write_text("not a folder")
    guest.boot(document(persist="trans=virtio\n.cache/pip", workspace="trans=virtio"))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert "bind .cache/pip" not in guest.actions()
    assert guest.ask("unmount") == ["7", "ok", "absent"]


def test_other_ids_for_dev(guest: Guest) -> None:
    guest.boot(document(uid="12345", gid="23456"))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert "dev:x:12345:23456::/home/dev:" in guest.read("etc/passwd")
    assert "root:x:0:0:" in guest.read("etc/passwd")
    assert "dev:x:23456:" in guest.read("etc/group")
    assert "/run/user/12345" in guest.read("etc/security/pam_env-ssh.conf")
    assert "chown 12345 23456" in guest.actions()


def test_the_ids_dev_has_already_cost_nothing(guest: Guest) -> None:
    guest.boot(document(uid="1000", gid="1000"))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert not [action for action in guest.actions() if action.startswith("chown")]


def test_a_planted_link_does_not_lead_root_elsewhere(guest: Guest) -> None:
    victim = guest.root / "victim"
    victim.write_text("untouched")
    (guest.root / "home/dev/.ssh").mkdir()
    for name in ("authorized_keys", "authorized_keys.sandbox-new"):
        (guest.root / "home/dev/.ssh" / name).symlink_to(victim)
    guest.boot(document(authorized_keys="ssh-ed25519 AAAA\n"))
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert victim.read_text() == "untouched"
    assert guest.read("home/dev/.ssh/authorized_keys") == "ssh-ed25519 AAAA\n"


def test_time_unmount_and_poweroff(guest: Guest) -> None:
    guest.boot()
    guest.line()
    assert guest.ask("time", "1795467863.000000001") == ["7", "ok"]
    assert guest.ask("unmount") == ["7", "ok", "absent"]
    assert guest.ask("poweroff") == ["7", "ok"]
    # Answered first, then done.
    assert guest.ask("ping") == ["7", "ok"]
    assert guest.actions() == ["time 1795467863 000000001", "unmount", "poweroff"]


RENEWED = IDENTITY + document(
    boot_id="11111111-2222-3333-4444-555555555555",
    product_uuid="66666666-7777-8888-9999-aaaaaaaaaaaa",
)


def test_a_restored_guest_forgets_the_boot_of_its_template(guest: Guest) -> None:
    """Its journal begins anew, under its own ids; that of the template goes."""
    for folder in ("run/systemd/journal", "run/log/journal/0ld", "run/log/journal/other"):
        (guest.root / folder).mkdir(parents=True)
    own = guest.root / "run/log/journal/0123456789abcdef0123456789abcdef"
    own.mkdir()
    for path in (guest.root / "run/log/journal/0ld/system.journal", own / "system.journal"):
        path.touch()
    seen = guest.root / "run/systemd/journal/kernel-seqnum"
    seen.touch()
    processes = guest.root / "sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs"
    processes.parent.mkdir(parents=True)
    processes.write_text("321\n")
    guest.boot()
    guest.line()
    assert guest.identify(RENEWED)
    assert guest.ask("ping") == ["7", "ok"]
    actions = guest.actions()
    assert "kill 321" in actions
    assert "cover /proc/sys/kernel/random/boot_id 11111111-2222-3333-4444-555555555555" in actions
    assert (
        "cover /sys/devices/virtual/dmi/id/product_uuid 66666666-7777-8888-9999-aaaaaaaaaaaa"
        in actions
    )
    assert not seen.exists()
    assert [path.name for path in (guest.root / "run/log/journal").iterdir()] == [own.name]
    assert (own / "system.journal").exists()
    # In this order: what is written down of the restart has the new ids.
    order = [action.split()[0] for action in actions]
    assert order.index("entropy") < order.index("cover") < order.index("kill")


def test_a_cold_boot_leaves_its_journal_alone(guest: Guest) -> None:
    folder = guest.root / "run/log/journal/other"
    folder.mkdir(parents=True)
    guest.boot(IDENTITY)
    guest.line()
    assert guest.line() == ["*", "ready"]
    assert guest.ask("ping") == ["7", "ok"]
    assert folder.exists()
    assert not [action for action in guest.actions() if action.startswith(("cover", "kill"))]


@pytest.mark.parametrize("field", ["boot_id", "product_uuid"])
@pytest.mark.parametrize("value", ["", "x", "11111111-2222-3333-4444-55555555555G", "../../etc"])
def test_ids_that_are_none(guest: Guest, field: str, value: str) -> None:
    guest.boot()
    guest.line()
    assert guest.ask("identity", document(**{field: value}))[1:] == [
        "error", f"{field}: not a UUID"
    ]  # fmt: skip


def test_rest_is_answered_when_it_is_done(guest: Guest) -> None:
    guest.boot()
    guest.line()
    assert guest.ask("rest") == ["7", "ok"]
    assert guest.actions() == ["rest"]
    assert guest.fields()["state"] == "waiting"


def test_a_clock_that_is_nearly_right_is_left_alone(guest: Guest) -> None:
    guest.boot()
    guest.line()
    now = int(time.time())
    assert guest.ask("time", f"{now}.5 60") == ["7", "ok"]
    assert guest.actions() == []
    assert guest.ask("time", f"{now + 100}.5 60") == ["7", "ok"]
    assert guest.ask("time", f"{now - 100} 60") == ["7", "ok"]
    assert guest.actions() == [f"time {now + 100} 500000000", f"time {now - 100} 000000000"]
    assert guest.ask("time", f"{now} x")[1:] == ["error", "not a time"]


OK = b"OK 0123456789abcdef0123456789abcdef\r\n"
SIGNAL = b"l\4\1\1" + struct.pack("<III", 3, 1, 5) + b"FIELD" + bytes(3) + b"sig"
RETURN = b"l\2\1\1" + struct.pack("<III", 0, 2, 8) + b"\5\1u\0\1\0\0\0"
ERROR = b"l\3\1\1" + struct.pack("<III", 0, 2, 8) + b"\5\1u\0\1\0\0\0"


class Manager(threading.Thread):
    """A service manager's socket: takes one call, answers in pieces."""

    def __init__(self, path: Path, answer: list[bytes]) -> None:
        super().__init__(daemon=True)
        path.parent.mkdir(parents=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.answer = answer
        self.heard = b""

    def run(self) -> None:
        client, _ = self.socket.accept()
        with client:
            while b"SetEnvironment" not in self.heard or not self.heard.endswith(b"\0"):
                self.heard += client.recv(65536)
            for part in self.answer:
                client.sendall(part)
                time.sleep(0.02)
            client.recv(1)


def text_at(message: bytes, at: int) -> tuple[str, int]:
    """A string of D-Bus, and where it ends."""
    at += -at % 4
    (length,) = struct.unpack_from("<I", message, at)
    assert message[at + 4 + length] == 0
    return message[at + 4 : at + 4 + length].decode(), at + 5 + length


@pytest.mark.parametrize("signals", [[], [SIGNAL], [SIGNAL[:7], SIGNAL[7:], SIGNAL]])
def test_managers_that_run_are_told_the_environment(guest: Guest, signals: list[bytes]) -> None:
    """By a call that D-Bus's specification would have no other way."""
    managers = [
        Manager(guest.root / name, [OK, *signals, RETURN[:5], RETURN[5:]])
        for name in ("run/systemd/private", "run/user/1000/systemd/private")
    ]
    for manager in managers:
        manager.start()
    guest.boot()
    guest.line()
    assert guest.identify(IDENTITY)
    for manager in managers:
        manager.join(LIMIT_S)
        hello, _, message = manager.heard.partition(b"BEGIN\r\n")
        assert hello == b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n"
        assert message[:4] == b"l\1\0\1"
        body, _, fields = struct.unpack_from("<III", message, 4)
        begin = 16 + fields + -fields % 8
        assert len(message) == begin + body
        at, told = 16, {}
        while at < 16 + fields:
            at += -at % 8
            code, kind = message[at], message[at + 2 : at + 3]
            assert message[at + 1] == 1 or code == 8
            if kind == b"g":
                length = message[at + 4]
                told[code] = message[at + 5 : at + 5 + length].decode()
                at += 6 + length
            else:
                told[code], at = text_at(message, at + 4)
        assert told == {
            1: "/org/freedesktop/systemd1", 2: "org.freedesktop.systemd1.Manager",
            3: "SetEnvironment", 8: "as",
        }  # fmt: skip
        array = message[begin:]
        assert struct.unpack_from("<I", array)[0] == len(array) - 4
        found, at = [], 4
        while at < len(array):
            pair, at = text_at(array, at)
            found.append(pair)
        assert found == [
            "SANDBOX_CONTAINER=sandbox-demo", "http_proxy=http://10.0.2.100:8888", 'ODD=a"b%c'
        ]  # fmt: skip


@pytest.mark.parametrize("answer", [[OK, ERROR], [b"REJECTED EXTERNAL\r\n"], [OK]])
def test_a_manager_that_does_not_take_it_does_not_stop_a_start(
    guest: Guest, answer: list[bytes]
) -> None:
    """Nor one that never answers, beyond seconds."""
    manager = Manager(guest.root / "run/systemd/private", answer)
    manager.start()
    guest.boot()
    guest.line()
    assert guest.identify(IDENTITY)
    assert guest.fields()["state"] == "ready"


def test_what_waits_for_the_agent_begins_with_the_first_login(guest: Guest) -> None:
    """Told by the host; who never hears of a login begins after a while all the same."""
    for tells in (True, False):
        guest.boot(patience="600" if tells else "0.2")
        guest.line()
        guest.identify(IDENTITY)
        assert guest.read("run/sandbox/identified") == ""
        if tells:
            assert guest.notified() == []
            assert guest.ask("proceed") == ["7", "ok"]
            assert guest.ask("proceed") == ["7", "ok"]
            assert guest.ask("ping") == ["7", "ok"]
        else:
            limit = time.monotonic() + LIMIT_S
            while not (found := guest.notified()):
                assert time.monotonic() < limit
                time.sleep(0.02)
            assert found == ["READY=1"]
            return
        assert guest.notified() == ["READY=1"]
        assert guest.process is not None
        guest.process.kill()
        guest.process.wait()
        guest.rest = b""
