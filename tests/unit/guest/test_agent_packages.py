"""What the agent does with the part of an identity that concerns packages."""

from __future__ import annotations

import pytest

from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.guest.identity import document as document_of
from sandbox_rpc.guest.packages import MARK, Packages
from tests.unit.guest.test_agent import Guest, guest
from tests.unit.host.registries.machine import certificate, pem

__all__ = ["guest"]

BUNDLE = "etc/ssl/certs/ca-certificates.crt"
SOURCES = "etc/apt/sources.list.d/debian.sources"
DEBIAN = """\
# Written by sandbox, from the example that apt brings along.
## more words
Types: deb
URIs: http://default.example/debian
Suites: trixie trixie-updates

## security
Types: deb
URIs: http://default.example/security
Suites: trixie-security
"""


@pytest.fixture
def system(guest: Guest) -> Guest:
    """With the files of an image."""
    for name in ("etc/ssl/certs", "etc/apt/sources.list.d", "usr/local/share/ca-certificates"):
        (guest.root / name).mkdir(parents=True)
    (guest.root / BUNDLE).write_text("DEBIAN'S\n")
    (guest.root / SOURCES).write_text(DEBIAN)
    (guest.root / "etc/hosts").write_text("127.0.0.1\tlocalhost\n")
    return guest


def boot(guest: Guest, packages: Packages) -> None:
    identity = Identity("x", "0" * 32, (), "KEY", packages=packages)
    guest.boot(document_of(identity).decode())
    guest.line()
    assert guest.line() == ["*", "ready"]


def test_without_any_of_it_nothing_is_touched(system: Guest) -> None:
    boot(system, Packages())
    assert system.read(BUNDLE) == "DEBIAN'S\n"
    assert system.read(SOURCES) == DEBIAN
    assert system.read("etc/hosts") == "127.0.0.1\tlocalhost\n"
    assert not (system.root / "etc/ssl/sandbox.pem").exists()


def test_certificates(system: Guest) -> None:
    one, two = certificate(1), certificate(2, 4000)
    boot(system, Packages(certificates=(one, two)))
    for text in (system.read(BUNDLE), system.read("etc/ssl/sandbox.pem")):
        assert text.count("BEGIN CERTIFICATE") == 2
        for der in (one, two):
            assert pem(der) in text
    assert system.read(BUNDLE).startswith("DEBIAN'S\n")
    assert system.read("usr/local/share/ca-certificates/sandbox-2.crt") == pem(two)
    # The same again, as after a restored machine's second identity.
    identity = Identity("x", "0" * 32, (), "KEY", packages=Packages(certificates=(one, two)))
    assert system.identify(document_of(identity).decode())
    assert system.read(BUNDLE).count("BEGIN CERTIFICATE") == 2


def test_hosts_are_replaced_not_piled_up(system: Guest) -> None:
    boot(system, Packages(hosts=(("10.1.2.3", "a.example"), ("10.1.2.4", "b.example"))))
    assert system.read("etc/hosts") == (
        "127.0.0.1\tlocalhost\n10.1.2.3 a.example # sandbox\n10.1.2.4 b.example # sandbox\n"
    )
    other = Identity(
        "x", "0" * 32, (), "KEY", packages=Packages(hosts=(("10.9.9.9", "a.example"),))
    )
    assert system.identify(document_of(other).decode())
    assert system.read("etc/hosts") == "127.0.0.1\tlocalhost\n10.9.9.9 a.example # sandbox\n"


def test_mirrors_take_the_place_of_debians(system: Guest) -> None:
    boot(system, Packages(apt_mirrors={"debian": "http://m.example/d"}))
    assert system.read(SOURCES) == DEBIAN.replace(
        "http://default.example/debian", "http://m.example/d"
    )
    both = Packages(apt_mirrors={"debian": "http://n.example/d", "debian-security": "http://n/s"})
    identity = Identity("x", "0" * 32, (), "KEY", packages=both)
    assert system.identify(document_of(identity).decode())
    assert "default.example" not in system.read(SOURCES)
    assert "URIs: http://n/s\nSuites: trixie-security\n" in system.read(SOURCES)


def test_files_of_an_image_that_are_not_ours_stay(system: Guest) -> None:
    (system.root / SOURCES).write_text(DEBIAN.partition("\n")[2])
    (system.root / "etc/pip.conf").write_text("[global]\n# their own\n")
    files = {"/etc/pip.conf": f"{MARK}\nnew\n", "/etc/npmrc": f"{MARK}\nnew\n"}
    boot(system, Packages(files=files, apt_mirrors={"debian": "http://m.example/d"}))
    assert "their own" in system.read("etc/pip.conf")
    assert system.read("etc/npmrc") == f"{MARK}\nnew\n"
    assert "m.example" not in system.read(SOURCES)
    newer = Identity(
        "x", "0" * 32, (), "K", packages=Packages(files={"/etc/npmrc": f"{MARK}\n2\n"})
    )
    assert system.identify(document_of(newer).decode())
    assert system.read("etc/npmrc") == f"{MARK}\n2\n"


def test_folders_are_made(system: Guest) -> None:
    files = {"/.cargo/config.toml": f"{MARK}\n", "/home/dev/.config/go/env": f"{MARK}\n"}
    boot(system, Packages(files=files))
    assert system.read(".cargo/config.toml") == f"{MARK}\n"
    assert system.read("home/dev/.config/go/env") == f"{MARK}\n"


def test_a_link_in_devs_folder_does_not_lead_root_elsewhere(system: Guest) -> None:
    (system.root / "elsewhere").mkdir()
    (system.root / "home/dev/.config").symlink_to(system.root / "elsewhere")
    boot(system, Packages(files={"/home/dev/.config/go/env": f"{MARK}\n"}))
    assert list((system.root / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "packages",
    [
        Packages(certificates=(b"no certificate",)),
        Packages(certificates=(certificate(1)[:-1],)),
        Packages(files={"/etc/../../x": MARK}),
        Packages(files={"/etc/a b": MARK}),
        Packages(files={"relative": MARK}),
    ],
)
def test_what_makes_no_sense_keeps_no_guest_from_being_ready(
    system: Guest, packages: Packages
) -> None:
    boot(system, packages)
    assert system.read(BUNDLE) == "DEBIAN'S\n"
    assert not (system.root.parent / "x").exists()
