"""What a setting accepts, and what is tighter than what."""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path

import pytest

from sandbox_rpc.config.choices import Accelerator, Need
from sandbox_rpc.config.setting import Folder, Kind, Setting, Value, written
from sandbox_rpc.config.settings import BY_KEY
from sandbox_rpc.protocol.errors import SettingInvalid


@pytest.mark.parametrize(
    ("key", "value", "result"),
    [
        ("memory", 2048, 2048),
        ("memory", "2G", 2048),
        ("memory", "2048", 2048),
        ("memory", 256, 256),
        ("memory", 16 * 1024 * 1024, 16 * 1024 * 1024),
        ("cpus", 1, 1),
        ("cpus", 255, 255),
        ("disk", "4G", 4096),
        ("accelerator", "kvm", Accelerator.KVM),
        ("box.filter", "require", Need.REQUIRE),
        ("image", "local/debian-13", "local/debian-13"),
        ("image", "reg.example:5000/a/b:1@sha256:00", "reg.example:5000/a/b:1@sha256:00"),
        ("workspace.read_only", True, True),
        ("start.timeout", 90, 90.0),
        ("start.timeout", 1.5, 1.5),
        ("start.timeout", 0, 0.0),
        ("qemu.binary", "", ""),
        ("qemu.binary", "/opt/qemu/bin/qemu", "/opt/qemu/bin/qemu"),
        ("qemu.binary", "qemu-system-x86_64", "qemu-system-x86_64"),
        ("build.mirror", "", ""),
        ("build.mirror", "http://mirror.example/debian", "http://mirror.example/debian"),
    ],
)
def test_a_good_value_gets_its_final_type(key: str, value: object, result: Value) -> None:
    checked = BY_KEY[key].check(value, source="test")
    assert checked == result
    assert type(checked) is type(result)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ([], ""),
        (".vscode-server,.cache/pip", ".vscode-server,.cache/pip"),
        ([".vscode-server", ".cache/pip"], ".vscode-server,.cache/pip"),
        ("workspaces,.sshx,..a", "workspaces,.sshx,..a"),
    ],
)
def test_a_list_is_a_text_with_commas_or_a_list(value: object, text: str) -> None:
    assert BY_KEY["persist"].check(value, source="test") == text


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("memory", 255, "less than 256M"),
        ("memory", -1, "less than 256M"),
        ("memory", "0", "less than 256M"),
        ("memory", "lots", "not a size"),
        ("memory", "", "not a size"),
        ("memory", 2048.0, "not a size"),
        ("memory", 1.5, "not a size"),
        ("memory", True, "not a size"),
        ("memory", math.inf, "not a size"),
        pytest.param("memory", 10**5000, "more than 16T", id="memory-endless"),
        ("memory", "999999999999T", "more than 16T"),
        ("memory", {}, "not a size"),
        ("cpus", 0, "less than 1"),
        ("cpus", 256, "more than 255"),
        ("cpus", "2", "not a whole number"),
        ("cpus", 2.0, "not a whole number"),
        ("cpus", False, "not a whole number"),
        ("cpus", [2], "not a whole number"),
        ("disk", 4095, "less than 4G"),
        ("accelerator", "KVM", "not one of its values"),
        ("accelerator", "", "not one of its values"),
        ("accelerator", ["kvm"], "not one of its values"),
        ("box.seccomp", True, "not one of its values"),
        ("image", "", "empty"),
        ("image", "-v", "not of the right form"),
        ("image", "/etc/shadow", "not of the right form"),
        ("image", "a/../../b", "not of the right form"),
        ("image", "a//b", "not of the right form"),
        ("image", "a b", "not of the right form"),
        ("image", "débian", "not of the right form"),
        ("image", "a\n", "it has control characters"),
        pytest.param("image", "a" * 5000, "longer than 4096 characters", id="image-endless"),
        ("image", 13, "not a text"),
        ("persist", ["a", 1], "a list of something else than texts"),
        ("persist", ["a,b"], "a list of something else than texts"),
        ("persist", "/etc", "not of the right form"),
        ("persist", "..", "not of the right form"),
        ("persist", "a/../../b", "not of the right form"),
        ("persist", "a,./b", "not of the right form"),
        ("persist", "a,,b", "not of the right form"),
        ("persist", "a/", "not of the right form"),
        ("persist", "a b", "not of the right form"),
        ("persist", "workspace", "not of the right form"),
        ("persist", "a,workspace/x", "not of the right form"),
        ("persist", ".ssh", "not of the right form"),
        ("workspace.read_only", "true", "neither true nor false"),
        ("workspace.read_only", 1, "neither true nor false"),
        ("workspace.read_only", None, "neither true nor false"),
        ("start.timeout", -1, "less than 0 seconds"),
        ("start.timeout", -0.5, "less than 0 seconds"),
        ("start.timeout", math.inf, "not a number of seconds"),
        ("start.timeout", math.nan, "not a number of seconds"),
        ("start.timeout", 86401, "more than 86400 seconds"),
        pytest.param("start.timeout", 10**5000, "more than 86400 seconds", id="timeout-endless"),
        ("start.timeout", True, "not a number of seconds"),
        ("start.timeout", "90", "not a number of seconds"),
        ("start.timeout", datetime.time(), "not a number of seconds"),
        ("qemu.binary", "./qemu", "a relative path"),
        ("pull.key", "cosign.pub", "a relative path"),
        ("qemu.binary", "/bin/qemu\0", "it has control characters"),
        ("build.mirror", "mirror.example", "not of the right form"),
        ("build.mirror", "http://mirror.example/ main\tx", "it has control characters"),
        ("build.mirror", "http://mirror.example/ [trusted=yes]", "not of the right form"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason(key: str, value: object, problem: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        BY_KEY[key].check(value, source="test")
    assert caught.value.message.endswith(f"(test): {problem}.")
    assert caught.value.message.startswith(f"{key} cannot be ")
    assert caught.value.hint
    assert caught.value.details == {"setting": key, "source": "test"}


def test_the_error_names_file_and_line() -> None:
    with pytest.raises(SettingInvalid) as caught:
        BY_KEY["cpus"].check("two", source="config.toml", file="/c/config.toml", line=3)
    assert caught.value.message == (
        'cpus cannot be "two" in /c/config.toml, line 3: not a whole number.'
    )
    assert caught.value.details == {
        "setting": "cpus",
        "source": "config.toml",
        "file": "/c/config.toml",
        "line": 3,
    }


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert BY_KEY["qemu.binary"].check("~/q", source="test") == "/home/ada/q"


@pytest.mark.parametrize(
    ("key", "bound", "value", "permitted"),
    [
        ("memory", 2048, 1024, True),
        ("memory", 2048, 2048, True),
        ("memory", 2048, 2049, False),
        ("cpus", 2, 1, True),
        ("cpus", 2, 3, False),
        ("disk", 20480, 20480, True),
        ("disk", 20480, 20481, False),
        ("workspace.security", "none", "none", True),
        ("workspace.security", "none", "mapped-xattr", True),
        ("workspace.security", "mapped-xattr", "none", False),
        ("workspace.read_only", False, True, True),
        ("workspace.read_only", True, True, True),
        ("workspace.read_only", True, False, False),
        ("ssh.autostart", True, False, True),
        ("ssh.autostart", False, False, True),
        ("ssh.autostart", False, True, False),
        ("ssh.agent_keys", True, False, True),
        ("ssh.agent_keys", False, True, False),
        *(
            (f"box.{name}", bound, value, permitted)
            for name in ("namespace", "filter", "seccomp")
            for bound, value, permitted in [
                ("off", "off", True),
                ("off", "auto", True),
                ("off", "require", True),
                ("auto", "off", False),
                ("auto", "auto", True),
                ("auto", "require", True),
                ("require", "off", False),
                ("require", "auto", False),
                ("require", "require", True),
            ]
        ),
    ],
)
def test_what_a_folder_may_tighten(key: str, bound: Value, value: Value, permitted: bool) -> None:
    assert BY_KEY[key].permits(value, bound) is permitted


@pytest.mark.parametrize(
    ("key", "text", "result"),
    [
        ("memory", "1.5G", 1536),
        ("cpus", "4", 4),
        ("start.timeout", "90", 90.0),
        ("start.timeout", "0.5", 0.5),
        ("accelerator", "tcg", Accelerator.TCG),
        ("qemu.binary", "./q/../qemu", os.path.join(os.getcwd(), "qemu")),
        ("qemu.binary", "qemu-kvm", "qemu-kvm"),
        ("pull.key", "cosign.pub", str(Path.cwd() / "cosign.pub")),
        ("pull.key", "", ""),
    ],
)
def test_the_words_of_a_command_line(key: str, text: str, result: Value) -> None:
    setting = BY_KEY[key]
    assert setting.check(setting.from_text(text), source="test") == result


@pytest.mark.parametrize(
    ("key", "text"),
    [("cpus", "1_0"), ("cpus", " 1"), ("cpus", "٣"), ("start.timeout", "nan"), ("cpus", "0x2")],
)
def test_numbers_on_a_command_line_are_plain(key: str, text: str) -> None:
    setting = BY_KEY[key]
    with pytest.raises(SettingInvalid):
        setting.check(setting.from_text(text), source="test")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (math.inf, "inf"),
        ("a", '"a"'),
        (Need.OFF, '"off"'),
        ({"a": 1}, "a table"),
        ([1], "a list"),
        (datetime.date(2025, 1, 1), "a date"),
        pytest.param(10**5000, "a number of more than 20 digits", id="endless"),
    ],
)
def test_a_value_is_shown_as_toml(value: object, text: str) -> None:
    assert written(value) == text


@pytest.mark.parametrize(
    "value",
    ["\x1b]52;c;ZXZpbA==\x07", "\x9b31m", "\x7f", "\u202e", "a\nb", "\udcff", "x" * 10**6],
    ids=lambda value: ascii(value)[:20],
)
def test_a_shown_value_cannot_act_on_a_terminal(value: str) -> None:
    shown = written(value)
    assert shown.replace("…", "").isascii()
    assert shown.isprintable()
    assert len(shown) <= 80


def test_a_row_that_contradicts_itself_is_our_mistake() -> None:
    """A tightening bool without an order, and a default out of range, fail at import."""
    with pytest.raises(AssertionError):
        Setting(
            key="a",
            kind=Kind.BOOL,
            default=True,
            folder=Folder.TIGHTEN,
            flag="--a",
            help="a",
            doc="A.",
        )
    with pytest.raises(SettingInvalid):
        Setting(
            key="a",
            kind=Kind.COUNT,
            default=0,
            minimum=1,
            maximum=2,
            folder=Folder.FREE,
            flag="--a",
            help="a",
            doc="A.",
        )
