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
import subprocess
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
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        self.notify.setblocking(False)
        self.process: subprocess.Popen[bytes] | None = None

    def boot(self, identity: str | None = None) -> None:
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
        return [*words[:2], *(base64.b64decode(word).decode() for word in words[2:])]

    def ask(self, verb: str, argument: str | None = None, number: str = "7") -> list[str]:
        self.send(f"{number} {verb}{'' if argument is None else ' ' + b64(argument)}\n")
        return self.line()

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
    for name in ("etc/ssh", "etc/security", "etc/systemd", "home/dev/workspace", "proc/sys/kernel"):
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
    workspace="trans=virtio,version=9p2000.L,msize=512000,access=client,cache=mmap",
    persist="trans=virtio,cache=mmap\n.vscode-server\n.cache/pip",
    a_key_of_the_future="ignored",
)


def test_a_cold_boot_applies_the_credential_and_says_ready(guest: Guest) -> None:
    guest.boot(IDENTITY)
    assert guest.line()[:2] == ["*", "hello"]
    assert guest.line() == ["*", "ready"]
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
        "mount workspace trans=virtio,version=9p2000.L,msize=512000,access=client,cache=mmap",
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
    assert guest.ask("identity", IDENTITY) == ["7", "ok"]
    assert guest.fields()["state"] == "ready"
    assert guest.notified() == ["READY=1"]
    assert guest.read("etc/hostname") == "sandbox-demo\n"
    assert guest.ask("identity", document(hostname="second")) == ["7", "ok"]
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
    assert guest.fields()["state"] == "failed"
    assert guest.notified() == []
    assert guest.ask("identity", IDENTITY) == ["7", "ok"]
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
