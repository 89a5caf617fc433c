"""Which certificates travel: the host's own additions, few, and never a key."""

from __future__ import annotations

import pytest

from sandbox_rpc.host.registries import certificates
from tests.unit.host.registries.machine import Machine, certificate, pem

ONE, TWO, THREE = certificate(1), certificate(2), certificate(3)
MOZILLA = "usr/share/ca-certificates/mozilla"
BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def test_nothing(machine: Machine) -> None:
    assert certificates.read(machine.look()) == ()


def test_what_an_administrator_has_added(machine: Machine) -> None:
    machine.write(f"{MOZILLA}/A.crt", pem(ONE))
    machine.write("usr/local/share/ca-certificates/company/x.crt", pem(TWO))
    machine.write("usr/local/share/ca-certificates/readme.txt", pem(THREE))
    machine.write(BUNDLE, pem(ONE) + pem(TWO))
    assert certificates.read(machine.look()) == (TWO,)


def test_what_is_in_the_bundle_and_not_in_the_distribution(machine: Machine) -> None:
    machine.write(BUNDLE, pem(ONE) + pem(TWO))
    # Without a distribution's list to compare with, a whole bundle would travel.
    assert certificates.read(machine.look()) == ()
    machine.write(f"{MOZILLA}/A.crt", pem(ONE).replace("\n", "\r\n"))
    assert certificates.read(machine.look()) == (TWO,)


def test_fedoras_places(machine: Machine) -> None:
    machine.write("usr/share/pki/ca-trust-source/ca-bundle.trust.p11-kit", f"[p11]\n{pem(ONE)}")
    machine.write("etc/pki/ca-trust/source/anchors/x.pem", pem(THREE))
    machine.write("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", pem(ONE) + pem(TWO))
    assert certificates.read(machine.look()) == (THREE, TWO)


@pytest.mark.parametrize("variable", certificates.VARIABLES)
def test_what_tools_are_told_by_variables(machine: Machine, variable: str) -> None:
    machine.environment[variable] = str(
        machine.write("company.pem", pem(ONE) + "text\n" + pem(TWO))
    )
    assert certificates.read(machine.look()) == (ONE, TWO)


def test_the_same_bundle_by_a_variable_and_a_link(machine: Machine) -> None:
    machine.write(BUNDLE, pem(ONE))
    (machine.root / "link.pem").symlink_to(machine.root / BUNDLE)
    machine.environment["PIP_CERT"] = str(machine.root / "link.pem")
    machine.environment["SSL_CERT_FILE"] = str(machine.root / BUNDLE)
    assert certificates.read(machine.look()) == ()


def test_a_private_key_never_travels(machine: Machine) -> None:
    key = certificate(9)
    text = pem(ONE) + pem(key, "PRIVATE KEY") + pem(key, "RSA PRIVATE KEY")
    # One that hides between the lines of a certificate, and one that a broken block leads into.
    text += (
        "-----BEGIN CERTIFICATE-----\n" + pem(key, "PRIVATE KEY") + "-----END CERTIFICATE-----\n"
    )
    machine.environment["PIP_CERT"] = str(machine.write("all.pem", text))
    assert certificates.read(machine.look()) == (ONE,)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----",
        pem(b"short"), pem(ONE[:-1]), pem(ONE + b"x"), pem(ONE, "TRUSTED CERTIFICATE"),
        "\x00" * 500,
    ],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_certificate(machine: Machine, text: str) -> None:
    machine.environment["PIP_CERT"] = str(machine.write("bad.pem", text))
    assert certificates.read(machine.look()) == ()


def test_a_large_bundle_does_not_travel_and_is_named(machine: Machine) -> None:
    company = machine.write("usr/local/share/ca-certificates/company.crt", pem(ONE))
    assert company
    public = machine.write("public.pem", "".join(pem(certificate(n, 1000)) for n in range(10, 150)))
    machine.environment["SSL_CERT_FILE"] = str(public)
    sources = machine.look()
    found = certificates.read(sources)
    assert found[0] == ONE
    assert sum(map(len, found)) <= certificates.MAX_BYTES
    (warning,) = sources.warnings
    assert str(public) in warning
    assert str(140 - (len(found) - 1)) in warning
