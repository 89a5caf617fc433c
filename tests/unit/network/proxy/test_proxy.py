"""The proxy's process: what it lets through, what it does to it, and what it says of it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.network.proxy.settings import Upstream
from tests.unit.network.lab import alive, wait_for
from tests.unit.network.proxy.stand import (
    LIMIT_S,
    Server,
    Stand,
    certificate,
    echo,
    exactly,
    read_all,
    read_head,
    secured,
    stand,
    tls,
    web,
)
from tests.unit.network.proxy.test_hello import message, records, server_name


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Stand]:
    """A stand; the test adds servers and starts it."""
    with stand(tmp_path) as made:
        yield made


def parts(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_what_no_line_allows_is_refused(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start()
    for answer in (
        one.get(f"http://a.test:{port}/secret?token=1"),
        one.talk(f"CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode()),
        one.get("http://b.test/"),
    ):
        status, said = parts(answer)
        assert status == 403
        assert said["error"] == "unlisted"
        assert "sandbox proxy allow" in said["message"]
    first, second, third = one.audited(3)
    assert first["method"] == "GET"
    assert second["method"] == "CONNECT"
    assert third["host"] == "b.test"
    for line in (first, second, third):
        assert line["allowed"] is False
        assert line["reason"] == "unlisted"
        assert "token" not in json.dumps(line)
    wait_for((one.journal / "blocked.json").exists, "the list of refusals")
    wait_for(lambda: len(blocked(one)) == 2, "both")
    assert [(event["host"], event["count"]) for event in blocked(one)] == [
        ("a.test", 2), ("b.test", 1),
    ]  # fmt: skip


def blocked(one: Stand) -> list[dict[str, Any]]:
    """The refusals as programs read them."""
    events: list[dict[str, Any]] = json.loads((one.journal / "blocked.json").read_text())["events"]
    return events


def test_plain_http_is_written_anew(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    answer = one.get(
        f"http://a.test:{port}/x?y", "Proxy-Authorization: Basic c2VjcmV0", "Proxy-Connection: x",
        "X-Mine: 1",
    )  # fmt: skip
    status, said = parts(answer)
    assert status == 200
    assert said["head"] == f"GET /x?y HTTP/1.1\r\nHost: a.test:{port}\r\nX-Mine: 1\r\n\r\n"
    assert b"Keep-Alive" not in answer
    (line,) = one.audited(1)
    assert line["allowed"]
    assert line["rule"] == f"a.test:{port}"
    assert line["address"] == "127.0.0.1"
    assert line["status"] == 200
    assert line["down"] > 100


def test_a_connection_is_kept_for_any_host(one: Stand) -> None:
    ports = {host: one.serve(host, web) for host in ("a.test", "b.test")}
    one.start(*(f"{host}:{port}" for host, port in ports.items()))
    with one.connect() as guest:
        for host in ("a.test", "a.test", "b.test", "c.test", "a.test"):
            place = f"{host}:{ports.get(host, 80)}"
            guest.sendall(f"GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
            head = read_head(guest)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = json.loads(exactly(guest, length))
            if host == "c.test":
                assert body["error"] == "unlisted"
            else:
                assert f"Host: {place}\r\n" in body["head"]
    assert one._servers[0].connections == 2
    assert one._servers[1].connections == 1
    assert [line["host"] for line in one.audited(5)] == [
        "a.test", "a.test", "b.test", "c.test", "a.test",
    ]  # fmt: skip


def test_pipelined_requests_are_judged_one_by_one(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    good = f"GET http://a.test:{port}/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = "GET http://evil.test/2 HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = one.talk((good + bad + good).encode())
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.count(b"HTTP/1.1 403 ") == 1
    assert answers.index(b"403") > answers.index(b"200")


def test_nothing_is_smuggled_behind_a_body(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    hidden = "GET /admin HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    start = f"POST http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\n"
    for framing in (
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        f"Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}",
        f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}",
        f"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{hidden}",
        f"Content-Length: +{len(hidden)}\r\n\r\n{hidden}",
    ):
        answer = one.talk((start + framing).encode())
        assert b"200 OK" not in answer, framing
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), answer
    # A body is a body, whatever is in it.
    said = parts(one.talk(f"{start}Content-Length: {len(hidden)}\r\n\r\n{hidden}".encode()))[1]
    assert said["body"] == hidden
    assert said["head"].count("Host:") == 1
    assert one._servers[0].connections == 1


def test_uploads(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    start = f"PUT http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    chunks = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    said = parts(one.talk(f"{start}Transfer-Encoding: chunked\r\n\r\n{chunks}".encode()))[1]
    assert said["body"] == "hello world"
    with one.connect() as guest:
        guest.sendall(f"{start}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert read_head(guest) == b"HTTP/1.1 100 Continue\r\n\r\n"
        guest.sendall(b"hello")
        assert parts(read_all(guest))[1]["body"] == "hello"
    large = bytes(range(256)) * 8192
    said = parts(one.talk(f"{start}Content-Length: {len(large)}\r\n\r\n".encode() + large))[1]
    assert said["body"].encode("latin-1") == large
    assert one.audited(3)[2]["up"] >= len(large)


def test_an_answer_before_the_body_is_over(one: Stand) -> None:
    def refuse(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass

    port = one.serve("a.test", refuse)
    one.start(f"a.test:{port}")
    with one.connect() as guest:
        head = f"PUT http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        guest.sendall(head.encode())
        answer = read_all(guest)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"no")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", b"old"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No\r\n\r\n", b""),
    ],
)  # fmt: skip
def test_answers_of_all_kinds(one: Stand, raw: bytes, body: bytes) -> None:
    def answer(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(raw)

    port = one.serve("a.test", answer)
    one.start(f"a.test:{port}")
    found = one.get(f"http://a.test:{port}/")
    status = b"204" if b"204" in raw else b"200"
    assert b"HTTP/1.1 " + status in found
    if body:
        assert body in found
    # To a client that knows no chunks none are sent.
    old = one.talk(f"GET http://a.test:{port}/ HTTP/1.0\r\n\r\n".encode())
    assert old.endswith(b"\r\n\r\n" + body)
    assert b"chunked" not in old.lower()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_a_server_that_speaks_no_http(one: Stand, raw: bytes) -> None:
    def answer(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(raw)

    port = one.serve("a.test", answer)
    one.start(f"a.test:{port}")
    found = one.get(f"http://a.test:{port}/")
    assert found.startswith(b"HTTP/1.1 502 "), found
    assert b"bytes" not in found


def test_a_server_that_hangs_up_in_the_middle(one: Stand) -> None:
    def answer(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    port = one.serve("a.test", answer)
    one.start(f"a.test:{port}")
    found = one.get(f"http://a.test:{port}/")
    assert found.endswith(b"half"), "an end that is none must not look like one"
    assert one.audited(1)[0]["reason"] == "broken"


def test_a_kept_connection_that_the_server_has_closed(one: Stand) -> None:
    def once(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    port = one.serve("a.test", once)
    one.start(f"a.test:{port}")
    with one.connect() as guest:
        for number in range(30):
            if number % 2:
                time.sleep(0.003 * (number % 3))  # before, while and after it closes
            guest.sendall(f"GET http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = read_head(guest)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = exactly(guest, length)
            assert (head.split(b"\r\n")[0][:13], body) == (b"HTTP/1.1 200 ", b"ok")


def test_websockets(one: Stand) -> None:
    def switch(client: socket.socket) -> None:
        head = read_head(client)
        assert b"Upgrade: websocket\r\n" in head
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\nfirst"
        )
        echo(client)

    port = one.serve("a.test", switch)
    one.start(f"a.test:{port}")
    with one.connect() as guest:
        guest.sendall(
            f"GET http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nearly".encode()
        )
        head = read_head(guest)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: x" in head
        assert exactly(guest, 10) == b"firstearly"
        guest.sendall(b"\0\xffframes")
        assert exactly(guest, 8) == b"\0\xffframes"
        guest.shutdown(socket.SHUT_WR)
        assert read_all(guest) == b""
    assert one.audited(1)[0]["status"] == 101


def test_tls_goes_through_a_tunnel_untouched(one: Stand, tmp_path: Path) -> None:
    pem = certificate(tmp_path, "a.test")
    port = one.serve("a.test", tls(pem, echo))
    one.start(f"a.test:{port}")
    with secured(one.tunnel("A.test.", port), pem, "a.test") as inside:
        inside.sendall(b"hello")
        assert inside.recv(5) == b"hello"
    (line,) = one.audited(1)
    assert line["sni"] == "a.test"
    assert line["allowed"]
    assert line["up"] > 100
    assert line["down"] > 500


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (records(message(server_name(b"evil.test")), []), "sni-mismatch"),
        (records(message(server_name(b"a.test.evil.test")), [9, 80]), "sni-mismatch"),
        (records(message(), []), "no-sni"),
        (b"\x16\3\1\0\5hello", "not-tls"),
        (b"\x16\3\1\xff\xff", "not-tls"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "not-tls"),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "host-mismatch"),
        (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n", "unsupported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not-tls"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 10_000])
def test_a_tunnel_for_somebody_else_is_cut(one: Stand, data: bytes, reason: str, step: int) -> None:
    heard: list[bytes] = []

    def listen(client: socket.socket) -> None:
        while said := client.recv(65536):
            heard.append(said)

    port = one.serve("a.test", listen)
    one.start(f"a.test:{port}")
    with one.tunnel("a.test", port) as guest:
        try:
            for at in range(0, len(data), step):
                guest.sendall(data[at : at + step])
        except (BrokenPipeError, ConnectionResetError):
            assert step == 1
        said = read_all(guest)
    assert b"200" not in said
    lines = one.audited(1)
    assert heard == [], "not a byte has left"
    assert lines[0]["reason"] == reason
    assert not lines[0]["allowed"]


def test_a_hello_in_pieces_goes_through(one: Stand, tmp_path: Path) -> None:
    pem = certificate(tmp_path, "a.test")
    port = one.serve("a.test", tls(pem, echo))
    one.start(f"a.test:{port}")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(pem))
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
    with one.tunnel("a.test", port) as guest:
        first = True
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = outgoing.read()
                if first:
                    # The same message in other records, and these in other segments.
                    data = records(data[5:], [3, 60, 100, 120])
                first = False
                for at in range(0, len(data), 7):
                    guest.sendall(data[at : at + 7])
                incoming.write(guest.recv(65536))
        guest.sendall(outgoing.read())
        client.write(b"hello")
        guest.sendall(outgoing.read())
        found = b""
        while not found:
            incoming.write(guest.recv(65536))
            try:
                found = client.read(5)
            except ssl.SSLWantReadError:
                continue
        assert found == b"hello"


def test_http_in_a_tunnel_is_looked_at(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    with one.tunnel("a.test", port) as guest:
        for _ in range(2):
            guest.sendall(f"GET /x HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n".encode())
            head = read_head(guest)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert "GET /x" in json.loads(exactly(guest, length))["head"]
        guest.sendall(b"GET /x HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
        assert b"421" in read_all(guest)
    assert [line["method"] for line in one.audited(4)] == ["GET", "GET", "GET", "CONNECT"]


def test_half_of_a_tunnel_may_end(one: Stand) -> None:
    def late(client: socket.socket) -> None:
        said = b""
        while data := client.recv(65536):
            said += data
        client.sendall(b"%d bytes" % len(said))

    port = one.serve("a.test", late)
    one.start(f"a.test:{port}")
    hello = records(message(server_name(b"a.test")), [])
    with one.tunnel("a.test", port) as guest:
        guest.sendall(hello + b"x" * 1000)
        guest.shutdown(socket.SHUT_WR)
        assert read_all(guest) == b"%d bytes" % (len(hello) + 1000)


def test_a_reader_that_stops_stops_the_writer(one: Stand) -> None:
    sent = 0
    stopped = threading.Event()

    def flood(client: socket.socket) -> None:
        nonlocal sent
        client.recv(65536)
        client.settimeout(1)
        try:
            while True:
                sent += client.send(bytes(65536))
        except TimeoutError:
            stopped.set()

    port = one.serve("a.test", flood)
    one.start(f"a.test:{port}")
    assert one.running is not None
    before = resident(one.running.pid)
    with one.tunnel("a.test", port) as guest:
        guest.sendall(records(message(server_name(b"a.test")), []))
        assert stopped.wait(LIMIT_S)
        assert sent < 64 << 20
        assert resident(one.running.pid) - before < 8 << 20


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_blocking_cuts_what_is_blocked_and_nothing_else(one: Stand) -> None:
    ports = {host: one.serve(host, echo) for host in ("a.test", "b.test")}
    lines = [f"{host}:{port}" for host, port in ports.items()]
    one.start(*lines)
    guests = {host: one.tunnel(host, port) for host, port in ports.items()}
    for host, guest in guests.items():
        hello = records(message(server_name(host.encode())), [])
        guest.sendall(hello)
        assert exactly(guest, len(hello)) == hello
    assert one.ask("status")["connections"] == 2
    one.allow(*lines, "!b.test")
    assert read_all(guests["b.test"]) == b""
    guests["a.test"].sendall(b"still here")
    assert exactly(guests["a.test"], 10) == b"still here"
    (line,) = one.audited(1)
    assert (line["host"], line["reason"]) == ("b.test", "blocked")
    assert b"blocked by" in one.get(f"http://b.test:{ports['b.test']}/")
    for guest in guests.values():
        guest.close()


def test_changes_count_from_the_next_request_on(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start("# nothing")
    url = f"http://a.test:{port}/"
    file = one.rules / "allowlist.txt"

    def status() -> int:
        return int(one.get(url).split()[1])

    assert status() == 403
    one.allow(f"a.test:{port}")
    one.ask("reload")
    assert status() == 200
    # By itself, in all the ways in which files change.
    file.write_text("")
    wait_for(lambda: status() == 403, "a file written in place")
    with file.open("a") as opened:
        opened.write(f"a.test:{port}\n")
    wait_for(lambda: status() == 200, "a line more")
    file.unlink()
    wait_for(lambda: status() == 403, "no file")
    (one.rules / "allowlist.once.txt").write_text(f"a.test:{port}\n")
    wait_for(lambda: status() == 200, "the other file")
    file.symlink_to("/etc/hostname")
    one.ask("reload")
    assert status() == 200
    (one.rules / "allowlist.once.txt").write_text("a b\n")
    wait_for(lambda: one.ask("status")["problems"] != [], "a bad line")
    (problem,) = one.ask("status")["problems"]
    assert problem["file"] == "allowlist.once.txt"
    assert problem["line"] == 1


def test_names_that_lead_to_this_host_or_its_networks(one: Stand) -> None:
    port = one.serve("pinned.test", web)
    one.start("*", f"*:{port}", f"127.0.0.1:{port}", f"10.1.2.3:{port}", "169.254.169.254")
    hosts = {
        "loop.test": "127.0.0.1", "lan.test": "192.168.7.7", "meta.test": "169.254.169.254",
        "six.test": "::1", "mapped.test": "::ffff:127.0.0.1", "nat64.test": "64:ff9b::7f00:1",
        "zero.test": "0.0.0.0",
    }  # fmt: skip
    text = "".join(f"{address} {name}\n" for name, address in hosts.items())
    one.ask("names", resolv="", hosts=text)
    for name in (*hosts, "localhost"):
        status, said = parts(one.get(f"http://{name}:{port}/"))
        assert (status, said["error"]) in [(403, "private"), (502, "unresolved")], (name, said)
    for place in ("127.0.0.1", "169.254.169.254:80", "[::1]", "[::ffff:127.0.0.1]"):
        shown = place if ":80" in place else f"{place}:{port}"
        assert parts(one.get(f"http://{shown}/"))[0] == 403, place
    assert parts(one.get(f"http://127.1:{port}/"))[0] == 400
    # The very port of the registry, by its own name only.
    assert parts(one.get(f"http://pinned.test:{port}/"))[0] == 200
    assert one._servers[0].connections == 1


def test_long_and_slow_heads(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    head = f"GET http://a.test:{port}/ HTTP/1.1\r\nHost: x\r\nX: {'x' * 200_000}\r\n\r\n"
    assert one.talk(head.encode()).startswith(b"HTTP/1.1 431 ")
    assert one.talk(b"GET\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert one.talk(b"\x16\3\1\0\5hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert one.talk(b"") == b""
    assert one._servers[0].connections == 0


def test_fifty_at_once_and_three_in_a_row(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    url = f"http://a.test:{port}/"
    for _ in range(3):
        assert parts(one.get(url))[0] == 200
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(one.get(url))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert [parts(answer)[0] for answer in answers] == [200] * 50
    assert len({line["id"] for line in one.audited(53)}) == 53
    wait_for(lambda: one.ask("status")["connections"] == 0, "all to have gone")


def test_killed_and_replaced_nobody_is_refused(one: Stand) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}")
    assert parts(one.get(f"http://a.test:{port}/"))[0] == 200
    one.kill()
    with one.connect() as early:
        early.sendall(f"GET http://a.test:{port}/ HTTP/1.0\r\n\r\n".encode())
        one.start()
        assert parts(read_all(early))[0] == 200
    assert len(one.audited(2)) == 2


def test_it_ends_with_its_machine(one: Stand) -> None:
    machine = subprocess.Popen(["sleep", "1000"])
    pidfd = os.pidfd_open(machine.pid)
    one.start("a.test", machine=pidfd)
    os.close(pidfd)
    assert one.running is not None
    pid = one.running.pid
    assert one.ask("status")["served"] == 0
    machine.kill()
    machine.wait()
    wait_for(lambda: not alive(pid), "its end")
    assert one.running.control.recv(1) == b""


@pytest.mark.parametrize("namespace", ["require", "off"])
def test_its_walls(one: Stand, namespace: str) -> None:
    port = one.serve("a.test", web)
    one.start(f"a.test:{port}", namespace=namespace)
    status = one.ask("status")
    walls = {layer["name"]: layer["active"] for layer in status["layers"]}
    assert walls == {"namespace": namespace == "require", "landlock": True, "seccomp": True}
    assert parts(one.get(f"http://a.test:{port}/"))[0] == 200
    assert one.running is not None
    status_file = Path(f"/proc/{one.running.pid}/status").read_text()
    assert "Seccomp:\t2" in status_file
    assert "NoNewPrivs:\t1" in status_file
    # Looking up a name needs a thread, the journal a file: neither wall is in the way.
    assert parts(one.get("http://nobody.test/"))[0] == 403
    one.allow("nobody.test")
    one.ask("reload")
    assert parts(one.get("http://nobody.test/"))[1]["error"] == "unresolved"
    assert len(one.audited(3)) == 3


class Other:
    """Another proxy, as companies have them."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def __call__(self, client: socket.socket) -> None:
        head = read_head(client)
        self.heads.append(head)
        if b"Proxy-Authorization: Basic dTpw\r\n" not in head:
            client.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n")
            echo(client)
        else:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_through_another_proxy(tmp_path: Path) -> None:
    other = Other()
    server = Server(other)
    upstream = Upstream("127.0.0.1", server.port, "Basic dTpw", ("direct.test",))
    with stand(tmp_path, upstream=upstream) as one:
        port = one.serve("direct.test", web)
        one.start("a.test", f"direct.test:{port}", "10.0.0.1")
        assert one.get("http://a.test/x").endswith(b"ok")
        assert other.heads[0].startswith(b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n")
        hello = records(message(server_name(b"a.test")), [])
        with one.tunnel("a.test", 443) as guest:
            guest.sendall(hello)
            assert exactly(guest, len(hello)) == hello
        assert other.heads[1].startswith(b"CONNECT a.test:443 HTTP/1.1\r\n")
        assert parts(one.get(f"http://direct.test:{port}/"))[0] == 200
        assert one.get("http://evil.test/").startswith(b"HTTP/1.1 403 ")
        assert one.get("http://169.254.169.254/").startswith(b"HTTP/1.1 403 ")
        assert len(other.heads) == 2
        assert one.ask("status")["upstream"] == f"127.0.0.1:{server.port}"
        assert "dTpw" not in one.log.read_text() + json.dumps(one.audit())
    server.close()


def test_another_proxy_that_refuses(tmp_path: Path) -> None:
    server = Server(Other())
    with stand(tmp_path, upstream=Upstream("127.0.0.1", server.port)) as one:
        one.start("a.test")
        answer = one.talk(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n")
        status, said = parts(answer)
        assert (status, said["error"]) == (502, "upstream")
        assert "407" in said["message"]
    server.close()
