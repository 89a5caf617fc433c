"""The table on the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
import shtab

from sandbox_rpc.config import flags
from sandbox_rpc.config.setting import Value
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.protocol.errors import SettingInvalid


def parser(command: str = "start") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="sandbox")
    flags.add_flags(made, command)
    return made


def given(line: str, command: str = "start") -> dict[str, Value]:
    return flags.from_namespace(parser(command).parse_args(line.split()))


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("", {}),
        ("--memory 1.5G", {"memory": 1536}),
        ("--memory=2048", {"memory": 2048}),
        ("--cpus 4 --disk 40G", {"cpus": 4, "disk": 40960}),
        ("--accelerator tcg", {"accelerator": "tcg"}),
        ("--image reg.example/a:1", {"image": "reg.example/a:1"}),
        ("--read-only", {"workspace.read_only": True}),
        ("--no-read-only", {"workspace.read_only": False}),
        (
            "--no-ssh-autostart --no-ssh-agent-keys",
            {"ssh.autostart": False, "ssh.agent_keys": False},
        ),
        ("--box-namespace require", {"box.namespace": "require"}),
        ("--start-timeout 2.5", {"start.timeout": 2.5}),
        ("--qemu /opt/q", {"qemu.binary": "/opt/q"}),
        ("--cpus 1 --cpus 2", {"cpus": 2}),
        ("--network offline", {"network": "offline"}),
        ("--proxy", {"network": "proxy"}),
        ("--network open --proxy", {"network": "proxy"}),
        ("--proxy --network=offline", {"network": "offline"}),
        ("--allow-host-port 5432", {"allow.host_ports": "5432"}),
        (
            "--allow-host-port 5432,6379 --allow-host-port 1",
            {"allow.host_ports": "5432,6379,1"},
        ),
        (
            "--allow-address 10.0.0.0/8 --allow-address 192.168.1.7:5432",
            {"allow.addresses": "10.0.0.0/8,192.168.1.7:5432"},
        ),
    ],
)
def test_only_what_is_given_is_set(line: str, values: dict[str, Value]) -> None:
    assert given(line) == values


@pytest.mark.parametrize(
    ("line", "key", "flag"),
    [
        ("--memory lots", "memory", "--memory"),
        ("--cpus 0", "cpus", "--cpus"),
        ("--cpus=-1", "cpus", "--cpus"),
        ("--accelerator kmv", "accelerator", "--accelerator"),
        ("--start-timeout inf", "start.timeout", "--start-timeout"),
        ("--network closed", "network", "--network"),
        ("--allow-host-port 1 --allow-host-port x", "allow.host_ports", "--allow-host-port"),
    ],
)
def test_a_wrong_value_names_its_flag(line: str, key: str, flag: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        given(line)
    assert caught.value.details == {"setting": key, "source": flag}
    assert flag in caught.value.message


def test_each_command_has_its_own_flags() -> None:
    assert given("--stop-timeout 5", "stop") == {"stop.timeout": 5.0}
    assert given("--mirror http://mirror.example/d", "image build") == {
        "build.mirror": "http://mirror.example/d"
    }
    assert "--memory" not in parser("stop").format_help()
    assert "--stop-timeout" not in parser("start").format_help()


def test_every_setting_has_a_flag_of_some_command() -> None:
    for row in SETTINGS:
        for command in row.commands:
            assert row.flag in parser(command).format_help()


def test_a_setting_does_not_meet_an_argument_of_its_name() -> None:
    made = argparse.ArgumentParser()
    made.add_argument("image")
    flags.add_flags(made)
    namespace = made.parse_args(["positional"])
    assert namespace.image == "positional"
    assert flags.from_namespace(namespace) == {}


def test_flags_before_a_subcommand_are_not_lost() -> None:
    made = argparse.ArgumentParser()
    flags.add_flags(made)
    flags.add_flags(made.add_subparsers().add_parser("start"))
    namespace = made.parse_args(["--memory", "1G", "start", "--cpus", "1"])
    assert flags.from_namespace(namespace) == {"memory": 1024, "cpus": 1}


def test_help_and_completion_know_the_choices() -> None:
    help_text = parser().format_help()
    assert "--accelerator {auto,kvm,tcg}" in help_text
    assert "(default: 2G)" in help_text
    script = shtab.complete(parser(), "bash")
    assert "mapped-xattr" in script
    assert "require" in script


def test_the_table_is_cheap_to_import() -> None:
    """Neither argparse, tomllib nor tempfile come with the settings that every start reads."""
    code = (
        "import sys\n"
        "import sandbox_rpc.config.flags, sandbox_rpc.config.sources\n"
        "heavy = {'argparse', 'tomllib', 'tempfile', 'difflib', 'asyncio', 'anyio', 'cattrs'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
