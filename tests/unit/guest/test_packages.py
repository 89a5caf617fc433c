"""Files and variables for the guest's tools."""

from __future__ import annotations

import configparser
import tomllib

from sandbox_rpc.guest.packages import ADDED, BUNDLE, MARK, Packages, configure
from sandbox_rpc.host.registries.url import Kind, Registry, clean


def registry(kind: Kind, url: str, role: str, *, configured: bool = True) -> Registry:
    found = clean(kind, url, role, configured=configured)
    assert found
    return found


def test_nothing_is_nothing() -> None:
    assert configure([]) == Packages()


def test_what_tools_have_built_in_is_not_written_down() -> None:
    built_in = [
        registry(Kind.PIP, "https://i.example/simple", "index", configured=False),
        registry(Kind.NPM, "https://n.example/", "registry", configured=False),
        registry(Kind.GO, "https://g.example/", "proxy", configured=False),
    ]
    assert configure(built_in) == Packages()
    assert configure(built_in, hosts=(("10.1.2.3", "i.example"),)).files == {}


def test_pip() -> None:
    text = configure(
        [
            registry(Kind.PIP, "http://i.example:8080/simple", "index"),
            registry(Kind.PIP, "https://a.example/x", "extra"),
            registry(Kind.PIP, "https://b.example/x", "extra"),
        ],
        certificates=(b"x",),
    ).files["/etc/pip.conf"]
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert dict(parser["global"]) == {
        "index-url": "http://i.example:8080/simple",
        "extra-index-url": "https://a.example/x https://b.example/x",
        "trusted-host": "i.example:8080",
        "cert": BUNDLE,
    }


def test_npm_wherever_it_looks() -> None:
    found = configure(
        [
            registry(Kind.NPM, "https://n.example/r/", "registry"),
            registry(Kind.NPM, "https://n.example/s/", "@scope"),
        ]
    )
    assert found.files["/etc/npmrc"].splitlines() == [
        MARK, "registry=https://n.example/r/", "@scope:registry=https://n.example/s/"
    ]  # fmt: skip
    assert found.files["/usr/etc/npmrc"] == found.files["/usr/local/etc/npmrc"]
    assert found.files["/usr/etc/npmrc"] == found.files["/etc/npmrc"]
    assert found.environment == {"npm_config_globalconfig": "/etc/npmrc"}


def test_cargo() -> None:
    text = configure(
        [
            registry(Kind.CARGO, "sparse+https://c.example/index/", "crates-io"),
            registry(Kind.CARGO, "sparse+https://o.example/index/", "own"),
        ]
    ).files["/.cargo/config.toml"]
    parsed = tomllib.loads(text)
    name = parsed["source"]["crates-io"]["replace-with"]
    assert parsed["source"][name] == {"registry": "sparse+https://c.example/index/"}
    assert parsed["registries"] == {"own": {"index": "sparse+https://o.example/index/"}}


def test_go_and_apt() -> None:
    found = configure(
        [
            registry(Kind.GO, "https://a.example", "proxy"),
            registry(Kind.GO, "https://b.example/x", "proxy"),
            registry(Kind.APT, "http://m.example/debian/", "debian"),
            registry(Kind.APT, "http://m.example/other", ""),
            registry(Kind.APT, "http://p.example:3142", "proxy"),
        ],
        apt_options=['Acquire::Check-Date "false";'],
    )
    assert (
        "GOPROXY=https://a.example,https://b.example/x,direct\n"
        in (found.files["/home/dev/.config/go/env"])
    )
    assert found.apt_mirrors == {"debian": "http://m.example/debian"}
    assert 'Acquire::Check-Date "false";' in found.files["/etc/apt/apt.conf.d/60sandbox"]


def test_authorities_reach_programs_that_do_not_ask_the_system() -> None:
    found = configure([], certificates=(b"x",))
    assert found.certificates == (b"x",)
    assert found.environment["NODE_EXTRA_CA_CERTS"] == ADDED
    assert found.environment["REQUESTS_CA_BUNDLE"] == BUNDLE
    assert f"cert = {BUNDLE}" in found.files["/etc/pip.conf"]
    assert f"cafile={BUNDLE}" in found.files["/etc/npmrc"]
