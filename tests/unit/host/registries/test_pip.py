"""pip's files and variables."""

from __future__ import annotations

import os

import pytest

from sandbox_rpc.host.registries import pip
from sandbox_rpc.host.registries.sources import Sources
from tests.unit.host.registries.machine import Machine

SECRET = "hunter2hunter2hunter2"


def urls(machine: Machine) -> list[tuple[str, str]]:
    return [(one.role, one.url) for one in pip.read(machine.look())]


def test_nothing(machine: Machine) -> None:
    assert urls(machine) == []


def test_files_go_from_the_system_to_the_user_to_the_variables(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://a.example/simple\n")
    assert urls(machine) == [("index", "https://a.example/simple")]
    machine.write("home/.config/pip/pip.conf", "[install]\nindex_url = https://b.example/simple\n")
    assert urls(machine) == [("index", "https://b.example/simple")]
    named = machine.write("named.conf", "[global]\nindex-url = https://c.example/simple\n")
    machine.environment["PIP_CONFIG_FILE"] = str(named)
    assert urls(machine) == [("index", "https://c.example/simple")]
    machine.environment["PIP_INDEX_URL"] = "https://d.example/simple"
    assert urls(machine) == [("index", "https://d.example/simple")]


def test_no_files_where_the_user_wants_none(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://a.example/simple\n")
    machine.environment["PIP_CONFIG_FILE"] = "/dev/null"
    assert urls(machine) == []


def test_extra_indexes_over_several_lines_and_without_those_on_the_disk(machine: Machine) -> None:
    machine.write(
        "etc/pip.conf",
        "[global]\nextra-index-url =\n  https://a.example/x\n  file:///opt/x\n  https://b.example\n"
        "index-url = https://i.example/simple\n",
    )
    assert urls(machine) == [
        ("index", "https://i.example/simple"),
        ("extra", "https://a.example/x"),
        ("extra", "https://b.example"),
    ]


def test_the_index_that_pip_has_built_in(machine: Machine) -> None:
    machine.write(
        "usr/lib/python3/dist-packages/pip/_internal/models/index.py",
        'PyPI = PackageIndex("https://i.example/", file_storage_domain="files.example")\n'
        'TestPyPI = PackageIndex("https://test.example/", file_storage_domain="t.example")\n',
    )
    found = pip.read(machine.look())
    assert [(one.role, one.url, one.configured) for one in found] == [
        ("index", "https://i.example/simple", False),
        ("files", "https://files.example/", False),
    ]
    machine.environment["PIP_INDEX_URL"] = "https://d.example/simple"
    assert urls(machine) == [("index", "https://d.example/simple")]
    # Named or not, its files are elsewhere.
    machine.environment["PIP_EXTRA_INDEX_URL"] = "https://user:x@i.example/simple"
    assert urls(machine)[1:] == [
        ("extra", "https://i.example/simple"), ("files", "https://files.example/")
    ]  # fmt: skip


def test_this_machines_own_pip_is_found() -> None:
    """What an installed pip says is read from a real one."""
    environment = {
        "HOME": "/nonexistent",
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": "/dev/null",
    }
    found = pip.read(Sources(environment))
    assert {one.role for one in found} == {"index", "files"}
    assert all(one.port == 443 and not one.configured for one in found)


def test_certificates(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\ncert = /etc/company.pem\n")
    sources = machine.look()
    pip.read(sources)
    assert list(sources.bundles) == ["/etc/company.pem"]


@pytest.mark.parametrize(
    "content",
    [
        f"[global]\nindex-url = https://user:{SECRET}@a.example/simple\n",
        f"[global]\nindex-url = https://__token__:{SECRET}@a.example/simple?x={SECRET}\n",
        f"[global]\nextra-index-url = https://a.example/{SECRET}/simple\n",
        f"[global]\npassword = {SECRET}\nclient-cert = /{SECRET}\nproxy = http://u:{SECRET}@p\n",
    ],
)
def test_no_token_gets_out(machine: Machine, content: str) -> None:
    machine.write("etc/pip.conf", content)
    sources = machine.look()
    found = pip.read(sources)
    assert SECRET not in f"{found} {sources.warnings} {sources.bundles}"


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\xff" * 50, b"\xff\xfe\xfa", b"no section\n", b"[global\nx",
        b"[global]\n%(x)s = y\n",
        b"[global]\nindex-url = %(home)s${x}\n", b"[global]\n" * 3000, b"[global]\nindex-url =\n",
        b"x" * (2 << 20),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_bad_file_is_a_warning_at_most(machine: Machine, content: bytes) -> None:
    machine.write("etc/pip.conf", content)
    machine.write("home/.config/pip/pip.conf", "[global]\nextra-index-url = https://a.example/x\n")
    assert ("extra", "https://a.example/x") in urls(machine)
