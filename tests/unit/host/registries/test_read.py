"""All of it together, on made-up hosts and on this one."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox_rpc.host import registries
from sandbox_rpc.host.registries.sources import MAX_BYTES
from tests.unit.host.registries.machine import Machine, certificate, pem

SECRET = "hunter2hunter2hunter2"


def test_a_host_without_anything(machine: Machine) -> None:
    assert registries.read(machine.environment, machine.root) == registries.Found((), (), (), ())
    assert registries.read({}, machine.root) == registries.Found((), (), (), ())


def test_this_host_gives_no_warning_and_no_secret() -> None:
    """Whatever it is configured with; it has an apt, and a pip of its own."""
    found = registries.read({"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
    assert found.warnings == ()
    assert {registry.kind for registry in found.registries} >= {"apt", "pip"}
    assert not [one for one in found.registries if "@" in one.url or "?" in one.url]


def test_everything_is_there_once(machine: Machine) -> None:
    company = pem(certificate(1))
    bundle = machine.write("company.pem", company + pem(certificate(2), "PRIVATE KEY"))
    machine.write(
        "etc/pip.conf", f"[global]\nindex-url=https://u:{SECRET}@a.example/\ncert={bundle}"
    )
    machine.write(
        "home/.npmrc", f"registry=https://a.example/npm\ncafile={bundle}\nca[]={company!r}"
    )
    machine.write(
        "etc/apt/sources.list", "deb https://a.example/d s main\ndeb https://a.example/d t x"
    )
    machine.environment["NODE_EXTRA_CA_CERTS"] = str(bundle)
    machine.environment["GOPROXY"] = f"https://a.example/{SECRET}"
    found = registries.read(machine.environment, machine.root)
    assert [(one.kind, one.url) for one in found.registries] == [
        ("apt", "https://a.example/d"), ("pip", "https://a.example/"), ("npm", "https://a.example/npm")
    ]  # fmt: skip
    assert found.certificates == (certificate(1),)
    (warning,) = found.warnings
    assert "a.example" in warning
    assert SECRET not in repr(found)


def test_what_is_no_file_is_not_read(machine: Machine) -> None:
    os.mkfifo(machine.write("etc/x", "").with_name("pip.conf"))
    (machine.root / "home").mkdir()
    (machine.root / "home/.npmrc").mkdir()
    (machine.root / "home/.cargo").symlink_to(machine.root / "home/.cargo")
    machine.environment["PIP_CONFIG_FILE"] = "/dev/zero"
    machine.environment["npm_config_globalconfig"] = "/dev/tty"
    machine.environment["SSL_CERT_FILE"] = "relative/\x00"
    found = registries.read(machine.environment, machine.root)
    assert found.registries == ()


def test_a_huge_file_is_a_warning(machine: Machine) -> None:
    path = machine.write("home/.npmrc", b"#" * (MAX_BYTES + 1))
    found = registries.read(machine.environment, machine.root)
    assert found.warnings == (f"{path} is larger than 1024 KiB and was not read.",)


def test_an_unreadable_file_is_a_warning(machine: Machine, tmp_path: Path) -> None:
    """A loop of links is refused to root as well."""
    loop = tmp_path / "etc" / "npmrc"
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop)
    found = registries.read(machine.environment, machine.root)
    assert len(found.warnings) == 1
    assert str(loop) in found.warnings[0]
