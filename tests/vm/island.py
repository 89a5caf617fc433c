"""A host of its own, with neighbours and an internet, for real sandboxes: all on this machine.

    guest ── QEMU ── netd ── host ── wan ── internet (9.9.9.9, and what no guest may reach)
                              └───── lan ── neighbours, name server

`make_host(label, prefix=island.prefix)` makes a `Host` like any other: `run`, `start`, `sh`, `ssh`
work as ever. But its commands, and the supervisors and network processes they start, live in a
network namespace with the addresses and canaries of `tests.unit.network.lab.World`, and with an
/etc of their own in a mount namespace: write to `Island.etc` what this host's name servers, hosts
file or configuration are to be. Nothing leaves the machine, so what a guest reaches does not depend
on where the tests run.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.unit.network.lab import World
from tests.unit.network.nodes import Node
from tests.vm.host import Host

RESOLVED = "127.0.0.53"
"""Where systemd-resolved answers on its host."""
ETC = """
mount --make-rprivate /
mount --rbind /etc "$1/before"
mount --rbind "$1/etc" /etc
cd "$1/before"
for entry in * .[!.]*; do
    [ -e "/etc/$entry" ] && continue
    if [ -L "$entry" ]; then cp -P "$entry" /etc/; else ln -s "$1/before/$entry" /etc/; fi
done
"""
"""What a file of the host was, it is here too, until a test replaces it."""


class Names:
    """A name server for a node: A records from a table, and all questions that were asked."""

    def __init__(self, node: Node, address: str, table: dict[str, str]) -> None:
        self.table = table
        self.asked: list[str] = []
        self._socket = node.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(None)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(4096)
            answer = self._answer(question)
            if answer is not None:
                self._socket.sendto(answer, peer)

    def _answer(self, question: bytes) -> bytes | None:
        labels, place = [], 12
        while place < len(question) and question[place]:
            labels.append(
                question[place + 1 : place + 1 + question[place]].decode(errors="replace")
            )
            place += 1 + question[place]
        if len(question) < place + 5:
            return None
        name = ".".join(labels).lower()
        self.asked.append(name)
        kind = question[place + 1 : place + 3]
        known = self.table.get(name)
        records = b""
        if known is not None and kind == b"\0\1":
            records = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(known)
        flags = 0x8180 if known is not None else 0x8183
        head = question[:2] + struct.pack(">HHHHH", flags, 1, bool(records), 0, 0)
        return head + question[12 : place + 5] + records


class Island:
    """The world, its name server, and the folder that is /etc there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.etc = folder / "etc"
        self.etc.mkdir()
        (folder / "before").mkdir()
        (self.etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        (self.etc / "resolv.conf").write_text(f"nameserver {RESOLVED}\n")
        self.world = World(mounts=True)
        self.world.host.run("sh", "-euc", ETC, "sh", str(folder))
        self.names = Names(self.world.host, RESOLVED, {"internet.example": "9.9.9.9"})
        self._folder = folder

    @property
    def prefix(self) -> list[str]:
        """What turns a command line into one of this host."""
        nsenter = shutil.which("nsenter")
        assert nsenter
        target = ["--target", str(self.world.host.pid)]
        return [nsenter, *target, "--user", "--preserve-credentials", "--mount", "--net", "--"]

    def listening(self) -> set[str]:
        """Addresses and ports at which anything on this host takes TCP connections."""
        lines = self.world.host.run("ss", "-ltnH").splitlines()
        return {line.split()[3] for line in lines}

    def stop(self) -> None:
        """End the namespaces; whatever ran in them has ended before."""
        self.world.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


KNOCK = r"""
import json, socket, sys, threading
def look(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as one:
        one.settimeout(60)
        try:
            one.connect((address, port))
            if kind == "udp":
                one.send(b"hello")
            return one.recv(100).decode().strip() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError as error:
            return f"unreachable {error.errno}"
doors = json.load(sys.stdin)
answers = [None] * len(doors)
def work(place):
    answers[place] = look(*doors[place])
threads = [threading.Thread(target=work, args=(place,)) for place in range(len(doors))]
[one.start() for one in threads]
[one.join() for one in threads]
print(json.dumps(answers))
"""

Door = tuple[str, str, int]
"""`tcp` or `udp`, address, port."""


def knock_inside(host: Host, name: str, doors: Sequence[Door]) -> dict[Door, str]:
    """What programs in the guest meet at these doors, all at once: a greeting, or `refused` ..."""
    answers = json.loads(python(host, name, KNOCK, json.dumps(doors)))
    return dict(zip(doors, answers, strict=True))


def python(
    host: Host, name: str, program: str, data: str | bytes = "", *, root: bool = False
) -> str:
    """Run a Python program in the guest, `data` its standard input; its output."""
    sudo = "sudo " if root else ""
    packed = program.encode().hex()
    command = f"{sudo}python3 -c 'exec(bytes.fromhex(\"{packed}\").decode())'"
    done: Any = host.sh(name, command, input=data)
    return str(done.out)
