"""An address comes out without secrets, or not at all."""

from __future__ import annotations

import pytest

from sandbox_rpc.host.registries.url import Kind, Unfit, clean, looks_secret

SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    ("text", "url", "host", "port"),
    [
        ("https://pkg.example/simple", "https://pkg.example/simple", "pkg.example", 443),
        ("http://pkg.example:80/", "http://pkg.example/", "pkg.example", 80),
        ("https://PKG.Example.:8443/a", "https://pkg.example:8443/a", "pkg.example", 8443),
        ("sparse+https://pkg.example/i/", "https://pkg.example/i/", "pkg.example", 443),
        ("http://192.168.1.7:8081/x", "http://192.168.1.7:8081/x", "192.168.1.7", 8081),
        ("https://[fd00::1]:8443/x", "https://[fd00::1]:8443/x", "fd00::1", 8443),
        (f"https://user:{SECRET}@pkg.example/s", "https://pkg.example/s", "pkg.example", 443),
        (f"https://{SECRET}@pkg.example/s", "https://pkg.example/s", "pkg.example", 443),
        (f"https://u:{SECRET}%40@pkg.example/s", "https://pkg.example/s", "pkg.example", 443),
        (f"https://pkg.example/s?token={SECRET}", "https://pkg.example/s", "pkg.example", 443),
        (f"https://pkg.example/s#{SECRET}", "https://pkg.example/s", "pkg.example", 443),
    ],
)
def test_what_is_passed_on(text: str, url: str, host: str, port: int) -> None:
    found = clean(Kind.PIP, text)
    assert found is not None
    assert (found.url, found.host, found.port) == (url, host, port)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "https://", "https:///path", "https://a b/", "https://pkg.example/a b",
        "https://pkg.example:99999/", "https://pkg.example:0/", "https://pkg.example:x/",
        "https://pkg.example/\x00", "https://pkg.example/\nindex-url=x", "https://[::1/",
        "https://pkg.exämple/", "https://-pkg.example/", "https://" + "a" * 4000,
        'https://pkg.example/"; rm', "https://pkg.example/${TOKEN}/", "https://pkg.example/$(id)",
        f"https://pkg.example/{SECRET}/simple", "https://pkg.example/basic/aB3dE5fG7hJ9kL1m/npm",
        "https://pkg.example/npm_aB3dE5fG7hJ9kL1mN3pQ/x", "https://pkg.example/u:p@x/",
        "https://pkg.example/AbCdEfGhIjKlMnOpQrStUv/simple", f"https://{SECRET}#x@pkg.example/",
        f"https://{SECRET}?x@pkg.example/", f"https://{SECRET}/x@pkg.example/",
        f"https://u:{SECRET}/x@pkg.example/", f"https://{SECRET}:12/x@pkg.example/",
    ],
)  # fmt: skip
def test_what_is_not(text: str) -> None:
    with pytest.raises(Unfit) as caught:
        clean(Kind.NPM, text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["file:///opt/wheels", "/opt/wheels", "ssh://git@h/x", "off"])
def test_what_is_on_no_network(text: str) -> None:
    assert clean(Kind.PIP, text) is None


@pytest.mark.parametrize(
    "segment",
    [
        "simple", "debian-security", "node_20.x", "20250520T000000Z", "cloud-sdk-bookworm", "",
        "python3.11-packages-2024", "artifactory", "maven2-releases", "550e8400-e29b-41d4-a716-446",
        "internationalization", "ARTIFACTS",
    ],
)  # fmt: skip
def test_names_that_people_choose_are_no_secrets(segment: str) -> None:
    assert not looks_secret(segment)
