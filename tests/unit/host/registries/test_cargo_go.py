"""cargo's and go's files and variables."""

from __future__ import annotations

import pytest

from sandbox_rpc.host.registries import cargo, go
from tests.unit.host.registries.machine import Machine

SECRET = "hunter2hunter2hunter2"
CARGO = f"""
[source.crates-io]
replace-with = "a"
[source.a]
replace-with = "b"
[source.b]
registry = "sparse+https://user:{SECRET}@crates.example/index/"
[registries.own]
index = "sparse+https://own.example/index/"
token = "{SECRET}"
[registries.git]
index = "https://git.example/index.git"
[registry]
token = "{SECRET}"
[http]
cainfo = "/etc/cargo.pem"
"""


def test_cargo(machine: Machine) -> None:
    machine.write("home/.cargo/config.toml", CARGO)
    machine.write("home/.cargo/credentials.toml", f'[registry]\ntoken = "{SECRET}"\n')
    machine.environment["CARGO_REGISTRIES_MY_OWN_INDEX"] = "sparse+https://env.example/i/"
    machine.environment["CARGO_REGISTRIES_MY_OWN_TOKEN"] = SECRET
    sources = machine.look()
    found = cargo.read(sources)
    assert [(one.role, one.url) for one in found] == [
        ("crates-io", "https://crates.example/index/"),
        ("own", "https://own.example/index/"),
        ("my-own", "https://env.example/i/"),
    ]
    assert list(sources.bundles) == ["/etc/cargo.pem"]
    assert SECRET not in f"{found} {sources.warnings}"


@pytest.mark.parametrize(
    "content",
    [
        '[source.crates-io]\nreplace-with="a"\n[source.a]\nreplace-with="crates-io"\n',
        '[source.crates-io]\nreplace-with="crates-io"\n',
        '[source.crates-io]\nreplace-with="missing"\n',
        '[source.crates-io]\nreplace-with="d"\n[source.d]\ndirectory="/vendor"\n',
        "[source\n", "source = 1\nregistries = []\nhttp = 2\n", "\x00\x01", "a=" + "[" * 20000,
        "[registries.'a b']\nindex = 'sparse+https://a.example/'\n[registries.x]\nindex = 4\n",
    ],
    ids=range(9),
)  # fmt: skip
def test_bad_cargo_files_give_nothing(machine: Machine, content: str) -> None:
    machine.write("home/.cargo/config.toml", content)
    assert cargo.read(machine.look()) == []


def test_go(machine: Machine) -> None:
    program = machine.write("opt/go/bin/go", "#!/bin/sh\n")
    program.chmod(0o755)
    (machine.root / "bin/go").symlink_to(program)
    machine.write("opt/go/go.env", "# x\nGOPROXY=https://built-in.example,direct\nGOSUMDB=s\n")

    def urls() -> list[tuple[str, bool]]:
        return [(one.url, one.configured) for one in go.read(machine.look())]

    assert urls() == [("https://built-in.example", False)]
    machine.write(
        "home/.config/go/env", f"GOPROXY=https://u:{SECRET}@a.example|https://b.example\n"
    )
    assert urls() == [("https://a.example", True), ("https://b.example", True)]
    machine.environment["GOPROXY"] = "off"
    assert urls() == []
    machine.environment["GOPROXY"] = "file:///mods,https://c.example:8443/go"
    assert urls() == [("https://c.example:8443/go", True)]


@pytest.mark.parametrize("content", [b"\x00", b"GOPROXY\n", b"GOPROXY=,,||\n", b"\xff" * 100])
def test_bad_go_files_give_nothing(machine: Machine, content: bytes) -> None:
    machine.write("home/.config/go/env", content)
    assert go.read(machine.look()) == []
