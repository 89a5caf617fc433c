"""A real start where libslirp cannot be loaded: QEMU's own network serves, and says what it costs.

QEMU itself is linked with the library, so it cannot be taken away; the interpreters of this host
are told that it is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.unit.network.lab import INTERNET, OWN_LAN, knock
from tests.vm.conftest import MakeHost, Running
from tests.vm.host import Host
from tests.vm.island import Island, knock_inside

WITHOUT = """
import ctypes


class CDLL(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name is not None and "libslirp" in str(name):
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        super().__init__(name, *arguments, **options)


ctypes.CDLL = CDLL
"""
COST = "reaches this host's loopback"


@pytest.fixture(scope="module")
def poor(island: Island, make_host: MakeHost) -> Iterator[Host]:
    """A user of the island whose Python finds no libslirp."""
    host = make_host("poor", prefix=island.prefix)
    folder = host.folder / "without"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT)
    host.extra["PYTHONPATH"] = str(folder)
    yield host
    host.close()


@pytest.fixture(scope="module")
def plain(poor: Host) -> Running:
    """A sandbox whose network is QEMU's own."""
    workspace = poor.workspace("plain")
    return Running(poor, workspace, poor.start(workspace, "--warm", "never"))


def test_doctor_says_what_it_costs(poor: Host) -> None:
    """Before anything is started, and how to get the library."""
    checks = {one["id"]: one for one in poor.json("doctor", check=False)["checks"]}
    found = checks["network"]
    assert found["status"] == "warning"
    assert COST in found["message"]
    assert "Install libslirp" in found["hint"]


def test_the_start_and_status_say_it_too(plain: Running) -> None:
    """As a warning, and as a wall that does not stand."""
    (warning,) = [one for one in plain.value["warnings"] if "libslirp" in one]
    assert COST in warning
    assert "Install libslirp" in warning
    status = plain.host.json("status", plain.name)
    (layer,) = [one for one in status["box"] if one["name"] == "network"]
    assert not layer["active"]
    assert COST in layer["detail"]
    assert COST in plain.host.run("status", plain.name).out


def test_what_is_said_is_true(plain: Running, island: Island) -> None:
    """The internet, and of the host what the network process would have refused."""
    world = island.world
    assert knock(world.host, "127.0.0.1", world.loopback_port) == "loopback"
    answers = knock_inside(
        plain.host, plain.name,
        [("tcp", INTERNET, 80), ("tcp", "10.0.2.2", world.loopback_port), ("tcp", OWN_LAN, 7003)],
    )  # fmt: skip
    assert list(answers.values()) == ["beyond", "loopback", "own-lan"]
    assert "9.9.9.9" in plain.sh("getent ahostsv4 internet.example").out


def test_ports_are_opened_by_qemu(plain: Running, island: Island) -> None:
    """On loopback only, to a server in the guest; closed, they refuse."""
    before = island.listening()
    plain.sh(
        # After a boot the user's systemd may come a little later than the login.
        "timeout 100 sh -c 'until [ -S $XDG_RUNTIME_DIR/bus ]; do sleep 0.2; done';"
        " systemd-run --user -q --unit=web python3 -m http.server 3000;"
        " timeout 100 sh -c 'until curl -s localhost:3000 >/dev/null; do sleep 0.2; done'"
    )
    opened = json.loads(plain.host.run("port", "3000", plain.name, "--json").out)
    door = f"127.0.0.1:{opened['hostPort']}"
    assert island.listening() - before == {door}
    assert plain.host.json("port", "list", plain.name) == [opened]
    with island.world.host.socket() as one:
        one.settimeout(60)
        one.connect(("127.0.0.1", opened["hostPort"]))
        one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert one.makefile("rb").read(12) == b"HTTP/1.0 200"
    plain.host.run("port", "close", "3000", plain.name)
    assert island.listening() == before
