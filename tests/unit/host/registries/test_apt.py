"""apt's lists and options."""

from __future__ import annotations

import pytest

from sandbox_rpc.host.registries import apt
from tests.unit.host.registries.machine import Machine

SECRET = "hunter2hunter2hunter2"
RELEASE = "-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: {}\nLabel: {}\nSuite: x\n"


def roles(machine: Machine) -> list[tuple[str, str]]:
    return [(one.role, one.url) for one in apt.read(machine.look()).registries]


def fetched(machine: Machine, name: str, origin: str, label: str) -> None:
    machine.write(f"var/lib/apt/lists/{name}_InRelease", RELEASE.format(origin, label))


def test_no_apt(machine: Machine) -> None:
    found = apt.read(machine.look())
    assert found == apt.Apt((), ())


def test_lines_and_stanzas(machine: Machine) -> None:
    machine.write(
        "etc/apt/sources.list",
        "# deb https://no.example x main\ndeb-src https://no.example x main\n"
        "deb [arch=amd64 signed-by=/k] https://a.example/x stable main # why\nnonsense\ndeb\n",
    )
    machine.write(
        "etc/apt/sources.list.d/b.sources",
        "# comment\nTypes: deb deb-src\nURIs: https://b.example/1\n https://b.example/2\n"
        "Suites: s\nSigned-By:\n -----BEGIN\n .\n x\n\nTypes: deb-src\nURIs: https://no.example\n"
        "Suites: s\n\nTypes: deb\nEnabled: no\nURIs: https://no.example\nSuites: s\n",
    )
    machine.write("etc/apt/sources.list.d/c.list.disabled", "deb https://no.example x main\n")
    machine.write("etc/apt/sources.list.d/d.list", "deb cdrom:[x]/ x main\ndeb file:/m x main\n")
    assert [url for _, url in roles(machine)] == [
        "https://a.example/x", "https://b.example/1", "https://b.example/2",
    ]  # fmt: skip


def test_debian_is_what_a_signed_release_says(machine: Machine) -> None:
    machine.write(
        "etc/apt/sources.list",
        f"deb https://u:{SECRET}@m.example/debian bookworm main\n"
        "deb https://m.example/debian bookworm-updates main\n"
        "deb https://m.example/sec bookworm-security main\ndeb https://o.example/d bookworm main\n",
    )
    fetched(machine, "m.example_debian_dists_bookworm", "Debian", "Debian")
    fetched(machine, "m.example_debian_dists_bookworm-updates", "Debian", "Debian")
    fetched(machine, "m.example_sec_dists_bookworm-security", "Debian", "Debian-Security")
    fetched(machine, "o.example_d_dists_bookworm", "Other", "Debian")
    assert roles(machine) == [
        ("debian", "https://m.example/debian"),
        ("", "https://m.example/debian"),
        ("debian-security", "https://m.example/sec"),
        ("", "https://o.example/d"),
    ]


def test_where_nothing_was_fetched_the_archives_keyring_says_it(machine: Machine) -> None:
    key = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    machine.write(
        "etc/apt/sources.list.d/debian.sources",
        f"Types: deb\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n{key}\n\n"
        f"Types: deb\nURIs: http://m.example/sec\nSuites: trixie-security\n{key}\n\n"
        "Types: deb\nURIs: http://o.example/\nSuites: trixie\n",
    )
    assert roles(machine) == [
        ("debian", "http://m.example/debian"),
        ("", "http://m.example/debian"),
        ("debian-security", "http://m.example/sec"),
        ("", "http://o.example/"),
    ]


def test_a_debians_own_list_without_keys(machine: Machine) -> None:
    """As in many container images, whose lists were cleaned away."""
    machine.write(
        "etc/apt/sources.list",
        "deb http://m.example/debian bookworm main\n"
        "deb http://m.example/debian bookworm-updates main\n"
        "deb http://m.example/sec bookworm-security main\n"
        "deb http://o.example/ stable main\ndeb [signed-by=/k] http://p.example/ bookworm main\n",
    )
    assert {role for role, _ in roles(machine)} == {""}
    machine.write("etc/os-release", "ID=ubuntu\nVERSION_CODENAME=bookworm\n")
    assert {role for role, _ in roles(machine)} == {""}
    machine.write("etc/os-release", 'PRETTY_NAME="D"\nVERSION_CODENAME=bookworm\nID="debian"\n')
    assert roles(machine) == [
        ("debian", "http://m.example/debian"), ("", "http://m.example/debian"),
        ("debian-security", "http://m.example/sec"), ("", "http://o.example/"),
        ("", "http://p.example/"),
    ]  # fmt: skip


def test_options(machine: Machine) -> None:
    machine.write("etc/apt/sources.list", "deb https://a.example/x stable main\n")
    machine.program(
        "apt-config",
        "#!/bin/sh\ncat <<'X'\n"
        'APT::Architecture "amd64";\nAcquire::Check-Valid-Until "false";\n'
        f'Acquire::http::Proxy "http://u:{SECRET}@proxy.example:3142";\n'
        'Acquire::http::Proxy::direct.example "DIRECT";\n'
        f'Acquire::https::a.example::Password "{SECRET}";\n'
        'Acquire::https::Verify-Peer "false";\nAcquire::https::CaInfo "/etc/ca.pem";\n'
        f'Acquire::https::SslKey "/etc/{SECRET}";\nAcquire::Check-Date "$(id)";\nX\n',
    )
    machine.environment["PATH"] += ":/usr/bin:/bin"
    sources = machine.look()
    found = apt.read(sources)
    assert found.options == (
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.example:3142";',
        'Acquire::http::Proxy::direct.example "DIRECT";',
    )
    assert ("proxy", "http://proxy.example:3142") in [(r.role, r.url) for r in found.registries]
    assert list(sources.bundles) == ["/etc/ca.pem"]
    assert SECRET not in f"{found} {sources.warnings}"


def test_an_apt_config_that_fails_is_a_warning(machine: Machine) -> None:
    machine.write("etc/apt/sources.list", "deb https://a.example/x stable main\n")
    machine.program("apt-config", "#!/bin/sh\nexit 100\n")
    sources = machine.look()
    assert len(apt.read(sources).registries) == 1
    assert len(sources.warnings) == 1


@pytest.mark.parametrize(
    "content",
    [b"\x00\xff" * 99, b"deb [", b"deb " + b"x" * 90000, b"\n\n:\n :\n", b"z" * (2 << 20)],
    ids=range(5),
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.list", "a.sources"])
def test_a_bad_file_is_a_warning_at_most(machine: Machine, name: str, content: bytes) -> None:
    machine.write(f"etc/apt/sources.list.d/{name}", content)
    machine.write("etc/apt/sources.list", "deb https://a.example/x stable main\n")
    assert roles(machine) == [("", "https://a.example/x")]
