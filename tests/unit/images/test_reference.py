"""What an image can be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_rpc.images import reference
from sandbox_rpc.images.reference import Reference
from sandbox_rpc.protocol.errors import ImageNotFound

DIGEST = "sha256:" + "0123456789abcdef" * 4

COMPONENT = st.from_regex(r"\A[a-z0-9]+((\.|_|__|-{1,3})[a-z0-9]+){0,2}\Z").filter(
    lambda text: not text.endswith(".json")
)
HOST = st.one_of(
    st.from_regex(r"\A[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){1,3}\Z"),
    st.builds("{}:{}".format, st.from_regex(r"\A[a-z][a-z0-9]{0,8}\Z"), st.integers(1, 65535)),
    st.sampled_from(["localhost", "127.0.0.1:5000", "[::1]:5000", "[::1]"]),
)
TAG = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,20}\Z")
PATH = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (reference.DEFAULT, reference.DEFAULT),
        ("example.org/a/b", "example.org/a/b:latest"),
        ("Example.ORG:5000/a", "example.org:5000/a:latest"),
        (f"example.org/a@{DIGEST}", f"example.org/a@{DIGEST}"),
        (f"example.org/a:tag@{DIGEST}", f"example.org/a@{DIGEST}"),
        ("localhost/a", "localhost/a:latest"),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("local/debian-13", "local/debian-13"),
        ("debian:old", "debian:old"),
    ],
)
def test_how_it_is_kept(text: str, expected: str) -> None:
    assert str(reference.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "a/", "/a", "../a", "a/../b", "a//b", "A/b", "a b", "a\n", "-a", ".a", "a:",
        "a@", f"a@{DIGEST}", f"local/a@{DIGEST}", "example.org/", "example.org/A", "exa_mple.org/a",
        "example.org:0/a", "example.org:99999/a", "example.org:x/a", "[::1/a", "[xyz]:1/a",
        f"example.org/a@sha256:{'0' * 63}", f"example.org/a@sha512:{'0' * 128}",
        "example.org/a:" + "t" * 129, "http://example.org/a", "user@example.org/a", "x" * 300,
        "a.json/b", "example.org/x.json/y", "example.org/a:b:c", "example.org/a:../../b",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ImageNotFound):
        reference.parse(text)


@given(HOST, PATH, TAG)
def test_a_tag_in_a_registry(host: str, path: str, tag: str) -> None:
    found = reference.parse(f"{host}/{path}:{tag}")
    assert found == Reference(host, path, tag)
    assert reference.parse(str(found)) == found


@given(HOST, PATH)
def test_a_digest_in_a_registry(host: str, path: str) -> None:
    found = reference.parse(f"{host}/{path}").pinned(DIGEST)
    assert reference.parse(str(found)) == found
    assert found.manifest == DIGEST


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        found = reference.parse(text)
    except ImageNotFound:
        return
    kept = str(found)
    assert reference.parse(kept) == found
    # It becomes a file below one folder.
    assert not kept.startswith("/")
    assert not {"", ".", ".."} & set(kept.split("/"))
    assert kept.isprintable()


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1", True), ("127.9.9.9:1", True),
        ("[::1]:5000", True), ("example.org", False), ("10.0.0.1:5000", False),
        ("localhost.example.org", False), ("127.0.0.1.example.org", False), ("[fe80::1]", False),
    ],
)  # fmt: skip
def test_plain_http_is_for_loopback_only(host: str, plain: bool) -> None:
    assert reference.parse(f"{host}/a").is_plain is plain
