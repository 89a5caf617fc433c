"""Templates as a user sees them, and what doctor says of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import anyio
import pytest

from sandbox_rpc.cli.main import main
from sandbox_rpc.config.choices import Warm
from sandbox_rpc.host.paths import Layout, TemplateFolder
from sandbox_rpc.protocol.errors import TemplateInvalid, TemplateNotFound
from sandbox_rpc.protocol.types import Check, Verdict
from sandbox_rpc.qemu import store
from sandbox_rpc.qemu.store import Origin
from sandbox_rpc.sandboxes import doctor, templates
from sandbox_rpc.supervisor.template import Missing

DIGEST = "1" * 64
ORIGIN = Origin("local/debian-13", f"sha256:{DIGEST}", "tcg", 2048, 2, 20480, "7.2.22")
KEYS = ("ab" * 16, "ac" * 16)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    made = Layout(tmp_path / "cache")
    made.make()
    monkeypatch.setenv("SANDBOX_CACHE_BASE", str(made.base))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return made


@pytest.fixture
def two(layout: Layout) -> tuple[str, str]:
    """Two templates, of which the second was used last, and their image."""
    (layout.images / DIGEST).mkdir()
    for key in KEYS:
        folder = layout.staging / key
        folder.mkdir()
        for name in ("memory", "disk.qcow2", "state", "blank.qcow2"):
            (folder / name).write_text(name)
        made = "2026-01-02T03:04:05.678+00:00"
        store.publish(layout, key, TemplateFolder(folder), ORIGIN, made)
    for template in store.every(layout):
        if template.key == KEYS[1]:
            template.touch()
    return KEYS


def test_what_is_listed(layout: Layout, two: tuple[str, str]) -> None:
    found = templates.every(layout)
    assert [one.key for one in found] == [KEYS[1], KEYS[0]]
    assert (found[0].image, found[0].memory_mib, found[0].disk_mib) == (
        "local/debian-13", 2048, 20480
    )  # fmt: skip
    assert found[0].size_bytes > 0
    assert found[0].used_at.startswith("20")


def test_removing(layout: Layout, two: tuple[str, str]) -> None:
    for digits in ("a", "nothing"):
        with pytest.raises(TemplateNotFound):
            templates.remove(layout, digits)
    assert templates.remove(layout, "ab") > 0
    assert store.keys(layout) == [KEYS[1]]
    assert templates.remove_all(layout) > 0
    assert store.keys(layout) == []


def test_those_of_an_image_go_with_it(layout: Layout, two: tuple[str, str]) -> None:
    assert templates.prune(layout) == 0
    (layout.images / DIGEST).rmdir()
    assert templates.prune(layout) > 0
    assert store.keys(layout) == []


def test_a_template_that_cannot_be_made_is_an_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start would go on cold; who asks for a template is told why there is none."""

    async def nothing(*_: object, **__: object) -> object:
        return Missing("making a template has failed: no room.")

    async def anything(*_: object, **__: object) -> object:
        class Choice:
            class image:  # noqa: N801 (as its field is called)
                agent = True
                foreign = False

        return Choice

    monkeypatch.setattr(templates, "obtain", nothing)
    monkeypatch.setattr(templates, "survey", anything)
    monkeypatch.setattr(templates, "ensure", anything)
    with pytest.raises(TemplateInvalid, match=r"^Making a template has failed: no room\.$"):
        anyio.run(templates.build, layout, {})


def test_the_command(
    layout: Layout, two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["template", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TEMPLATE", "IMAGE", "MEMORY", "CPUS", "ON", "SIZE", "LAST", "USED"]
    assert [line.split()[0] for line in lines[1:]] == [KEYS[1][:12], KEYS[0][:12]]
    assert main(["template", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["key"] == KEYS[1]
    assert main(["template", "remove", "ac"]) == 0
    assert main(["template", "remove", "ac"]) == 12
    assert "There is no template ac" in capsys.readouterr().err
    assert main(["template", "remove", "--all"]) == 0
    assert main(["template", "list"]) == 0
    assert "the next start makes one" in capsys.readouterr().err


def said(layout: Layout, warm: Warm = Warm.AUTO) -> Check:
    (found,) = [one for one in doctor.examine(layout, warm=warm).checks if one.id == "warm"]
    return found


def test_what_doctor_says(
    layout: Layout, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps this host from it, and otherwise how much there is."""
    assert (said(layout).status, said(layout).message[:29]) == (
        Verdict.OK, "2 templates to start from, 0 "
    )  # fmt: skip
    assert "every start boots" in said(layout, Warm.NEVER).message
    store.note_failure(layout, "cd" * 16, "the guest did not come to rest")
    assert said(layout).status is Verdict.WARNING
    assert "did not come to rest" in said(layout).message
    assert "template build" in str(said(layout).hint)
    layout.template_failure("cd" * 16).unlink()
    templates.remove_all(layout)
    assert "the next start makes a template" in said(layout).message

    class Full:
        free = 1 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    assert said(layout).status is Verdict.WARNING
    assert "1024 MiB" in said(layout).message


def test_an_old_failure_is_forgotten(layout: Layout) -> None:
    store.note_failure(layout, KEYS[0], "x")
    long_ago = time.time() - 2 * store.FAILURE_HOLDS_S
    os.utime(layout.template_failure(KEYS[0]), (long_ago, long_ago))
    assert said(layout).status is Verdict.OK
