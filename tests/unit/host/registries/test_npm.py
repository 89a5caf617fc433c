"""npm's files and variables."""

from __future__ import annotations

import pytest

from sandbox_rpc.host.registries import npm
from tests.unit.host.registries.machine import Machine

SECRET = "hunter2hunter2hunter2"


def urls(machine: Machine) -> list[tuple[str, str]]:
    return [(one.role, one.url) for one in npm.read(machine.look())]


def test_nothing(machine: Machine) -> None:
    assert urls(machine) == []


def test_system_user_variables(machine: Machine) -> None:
    machine.write("etc/npmrc", "registry=https://a.example/\n@one:registry=https://one.example/\n")
    assert urls(machine) == [("registry", "https://a.example/"), ("@one", "https://one.example/")]
    machine.write("home/.npmrc", 'registry = "https://b.example/" ; ours\n')
    assert urls(machine)[0] == ("registry", "https://b.example/")
    machine.environment["NPM_CONFIG_REGISTRY"] = "https://c.example/"
    assert urls(machine)[0] == ("registry", "https://c.example/")
    assert urls(machine)[1] == ("@one", "https://one.example/")


def test_other_places_for_files(machine: Machine) -> None:
    user = machine.write("u", "registry=https://u.example/\n")
    machine.write("home/.npmrc", "registry=https://not.example/\n")
    machine.environment["npm_config_userconfig"] = str(user)
    assert urls(machine) == [("registry", "https://u.example/")]
    machine.environment["npm_config_globalconfig"] = str(
        machine.write("g", "@g:registry=https://g.example/\n")
    )
    assert ("@g", "https://g.example/") in urls(machine)


def test_the_prefix_of_an_npm_that_came_with_node(machine: Machine) -> None:
    program = machine.write("opt/lib/node_modules/npm/bin/npm-cli.js", "")
    program.chmod(0o755)
    (machine.root / "bin/npm").symlink_to(program)
    definitions = "node_modules/@npmcli/config/lib/definitions/definitions.js"
    machine.write(
        f"opt/lib/node_modules/npm/{definitions}",
        "  registry: new Definition('registry', {\n    default: 'https://d.example/',\n",
    )
    found = npm.read(machine.look())
    assert [(one.url, one.configured) for one in found] == [("https://d.example/", False)]
    machine.write("opt/etc/npmrc", "registry=https://e.example/\n")
    assert urls(machine) == [("registry", "https://e.example/")]


def test_variables_in_a_value(machine: Machine) -> None:
    machine.environment["NPM_HOST"] = "v.example"
    machine.environment["NPM_TOKEN"] = SECRET
    machine.write("home/.npmrc", "registry=https://${NPM_HOST}/\n")
    assert urls(machine) == [("registry", "https://v.example/")]
    machine.write("home/.npmrc", "registry=https://u:${NPM_TOKEN}@v.example/\n")
    assert urls(machine) == [("registry", "https://v.example/")]
    machine.write("home/.npmrc", "registry=https://v.example/${NPM_TOKEN}/\n")
    assert urls(machine) == []


def test_authorities(machine: Machine) -> None:
    machine.write("home/.npmrc", "cafile=/etc/a.pem\nca=-----BEGIN CERTIFICATE-----\\nxx\n")
    sources = machine.look()
    npm.read(sources)
    assert list(sources.bundles) == ["/etc/a.pem"]
    assert sources.inline == ["-----BEGIN CERTIFICATE-----\nxx"]


def test_no_token_gets_out(machine: Machine) -> None:
    machine.write(
        "home/.npmrc",
        f"//a.example/:_authToken={SECRET}\n_auth={SECRET}\n//a.example/:_password={SECRET}\n"
        f"registry=https://user:{SECRET}@a.example/{SECRET}/\nkey={SECRET}\n"
        f"@x:registry=https://{SECRET}@a.example/x?t={SECRET}\n@{SECRET}:x=y\nemail={SECRET}\n",
    )
    machine.environment["npm_config__authtoken"] = SECRET
    sources = machine.look()
    found = npm.read(sources)
    assert [one.url for one in found] == ["https://a.example/x"]
    assert SECRET not in f"{found} {sources.warnings} {sources.bundles} {sources.inline}"


@pytest.mark.parametrize(
    "content", [b"\x00\xff" * 99, b"=\n==\nregistry\n[x]\n;\n", b"registry=\n", b"y" * (2 << 20)],
    ids=range(4),
)  # fmt: skip
def test_a_bad_file_is_a_warning_at_most(machine: Machine, content: bytes) -> None:
    machine.write("etc/npmrc", content)
    machine.write("home/.npmrc", "@a:registry=https://a.example/\n")
    assert urls(machine) == [("@a", "https://a.example/")]
