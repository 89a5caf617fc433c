"""Requests: what comes in in any form goes out in one, to the host that was judged."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_rpc.network.proxy.request import (
    MAX_HEAD,
    Refused,
    Target,
    inner_target,
    onward,
    target_of,
    wanted_upgrade,
)

token = st.text("abcXYZ-!#$%&'*+.^_`|~019", min_size=1, max_size=12)
value = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
hosts = st.sampled_from(["a.example", "A.Example.", "203.0.113.7", "[2001:db8::1]", "b.example:81"])


def received(data: bytes) -> h11.Request:
    """A request as the proxy reads it; h11's error where it is none."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    server.receive_data(data)
    event = server.next_event()
    assert isinstance(event, h11.Request), event
    return event


def sent(request: h11.Request) -> bytes:
    """The bytes that leave for the server."""
    data = h11.Connection(h11.CLIENT).send(request)
    assert data is not None
    return data


def strict(data: bytes) -> tuple[bytes, dict[bytes, list[bytes]]]:
    """Request line and headers by a parser that knows one spelling only."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert end
    assert rest == b""
    assert head.replace(b"\r\n", b"").isascii()
    line, *lines = head.split(b"\r\n")
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert line.count(b" ") == 2
    headers: dict[bytes, list[bytes]] = {}
    for one in lines:
        name, colon, content = one.partition(b": ")
        assert colon or one.endswith(b":")
        assert name.strip() == name
        headers.setdefault(name.lower(), []).append(content)
    return line, headers


@given(
    token,
    hosts,
    value.map(lambda text: text.replace("#", "")),
    st.lists(st.tuples(token, value), max_size=5),
)
def test_any_request_goes_out_in_one_form(
    method: str, host: str, path: str, extra: list[tuple[str, str]]
) -> None:
    lines = "".join(f"{name}: {content}\r\n" for name, content in extra)
    data = f"{method} http://{host}/{path} HTTP/1.1\r\nHost: evil.example\r\n{lines}\r\n".encode()
    try:
        request = received(data)
        target = target_of(request)
        out = onward(request, target)
    except (h11.RemoteProtocolError, Refused):
        return
    line, headers = strict(sent(out))
    assert line == f"{method} /{path} HTTP/1.1".encode()
    (named,) = headers[b"host"]
    assert named.decode() == host.lower().removesuffix(".")
    assert b"evil.example" not in sent(out)
    assert not headers.keys() & {b"proxy-authorization", b"proxy-connection", b"keep-alive", b"te"}
    assert len(headers.get(b"content-length", [])) + len(headers.get(b"transfer-encoding", [])) <= 1


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_a_request_or_refused(data: bytes) -> None:
    for head in (
        data,
        b"GET http://" + data + b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT " + data + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n",
    ):
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        server.receive_data(head)
        try:
            request = server.next_event()
            if isinstance(request, h11.Request):
                out = onward(request, target := target_of(request))
                if not target.is_tunnel:
                    strict(sent(out))
        except (h11.RemoteProtocolError, Refused):
            continue


@pytest.mark.parametrize(
    "words",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Content-Length: 5, 6",
        "Content-Length: 5\r\nContent-Length: 6", "Content-Length: +5", "Content-Length: 0x5",
        "Transfer-Encoding: identity", "Transfer-Encoding : chunked", "Content-Length: -1",
        "Transfer-Encoding: \x0bchunked", "X: a\x00b", "X\x00: b", " X: b", "Host: other.example",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(words: str) -> None:
    data = f"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{words}\r\n\r\n".encode()
    if words.startswith(" "):
        # A folded line is part of the one before, also for us; and Host is written anew.
        request = received(data)
        assert b"x: b" not in sent(onward(request, target_of(request))).lower()
        return
    with pytest.raises((h11.RemoteProtocolError, Refused)):
        onward(received(data), Target("a.example", 80, b"/"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("GET / HTTP/1.1", "not-a-proxy-request"),
        ("OPTIONS * HTTP/1.1", "unsupported"),
        ("GET https://a.example/ HTTP/1.1", "unsupported"),
        ("GET ftp://a/ HTTP/1.1", "unsupported"),
        ("GET http://u:p@a.example/ HTTP/1.1", "bad-host"),
        ("GET http:///x HTTP/1.1", "bad-host"),
        ("GET http://a.example\\@b.example/ HTTP/1.1", "bad-host"),
        ("GET http://127.1/ HTTP/1.1", "bad-host"),
        ("GET http://a.example:0/ HTTP/1.1", "bad-host"),
        ("GET http://a.example:x/ HTTP/1.1", "bad-host"),
        ("CONNECT a.example HTTP/1.1", "bad-host"),
        ("CONNECT a.example:443/x HTTP/1.1", "bad-host"),
        ("CONNECT /x HTTP/1.1", "bad-host"),
        ("CONNECT u@a.example:443 HTTP/1.1", "bad-host"),
        ("GET http://a%2eb/ HTTP/1.1", "bad-host"),
        ("CONNECT 2130706433:443 HTTP/1.1", "bad-host"),
        ("CONNECT [::1%lo]:443 HTTP/1.1", "bad-host"),
        ("GET http://a.example/#x HTTP/1.1", "unsupported"),
    ],
)
def test_places_that_are_none(line: str, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        target_of(received(f"{line}\r\nHost: a.example\r\n\r\n".encode()))
    assert refusal.value.status == 400
    assert refusal.value.reason == reason


def test_places() -> None:
    for line, target in {
        "CONNECT A.example.:443": Target("a.example", 443, b""),
        "CONNECT [2001:DB8::1]:8443": Target("2001:db8::1", 8443, b""),
        "GET http://a.example": Target("a.example", 80, b"/"),
        "GET HTTP://a.example:8080?q": Target("a.example", 8080, b"/?q"),
        "GET http://a.example/x?y=http://b/": Target("a.example", 80, b"/x?y=http://b/"),
    }.items():
        assert target_of(received(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())) == target


def test_old_clients() -> None:
    request = received(b"GET http://a.example/ HTTP/1.0\r\n\r\n")
    assert sent(onward(request, target_of(request))) == b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def test_headers_between_neighbours_stay_there() -> None:
    request = received(
        b"GET http://a.example:81/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic x\r\n"
        b"Connection: close, X-Mine, Content-Length\r\nX-Mine: 1\r\nX-Yours: 2\r\nTE: gzip\r\n"
        b"Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n"
    )
    out = sent(onward(request, target_of(request)))
    assert out == (
        b"GET / HTTP/1.1\r\nHost: a.example:81\r\nX-Yours: 2\r\nContent-Length: 3\r\n\r\n"
    )
    other = sent(onward(request, target_of(request), absolute=True))
    assert other.startswith(b"GET http://a.example:81/ HTTP/1.1\r\n")


def test_an_upgrade_is_passed_on() -> None:
    def asked(protocol: str, connection: str = "keep-alive, Upgrade") -> h11.Request:
        return received(
            f"GET http://a.example/ HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n"
            f"Upgrade: {protocol}\r\n\r\n".encode()
        )

    request = asked("websocket")
    assert sent(onward(request, target_of(request))).endswith(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert wanted_upgrade(asked("h2c").headers) is None
    assert wanted_upgrade(asked("websocket", "close").headers) is None


def test_requests_inside_a_tunnel_stay_there() -> None:
    def inside(line: str, host: str) -> Target:
        data = f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        return inner_target(received(data), "a.example", 8080)

    assert inside("GET /x", "A.example:8080") == Target("a.example", 8080, b"/x")
    assert inside("GET /x", "a.example") == Target("a.example", 8080, b"/x")
    for line, host in (
        ("GET /x", "b.example"), ("GET http://b.example/", "a.example"), ("GET /", "a.example:22"),
        ("CONNECT b.example:443", "a.example"), ("GET /", "a.example:8080:80"),
    ):  # fmt: skip
        with pytest.raises(Refused):
            inside(line, host)
