"""What the settings say about the network, and what the user should know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.host.paths import Room
from sandbox_rpc.network import libslirp
from sandbox_rpc.network.launch import Wish
from sandbox_rpc.network.policy import Mode
from sandbox_rpc.protocol.errors import RuleInvalid, SettingInvalid
from sandbox_rpc.supervisor import reach


def chosen(**fields: Any) -> Settings:
    return Settings(**fields)


def test_what_the_settings_wish_for(tmp_path: Path) -> None:
    room = Room(tmp_path)
    assert reach.wish(chosen(), room) == Wish(Mode.OPEN, namespace="auto")
    some = chosen(allow_addresses="10.0.0.0/8,192.168.1.7:22", allow_host_ports="5432,1")
    wish = reach.wish(some, room)
    assert (wish.allow, wish.host_ports) == (("10.0.0.0/8", "192.168.1.7:22"), (5432, 1))
    (route,) = reach.wish(chosen(network=Network.PROXY), room).routes
    assert route.path == str(room.proxy_socket)
    for ports in ("0", "65536", "1,99999"):
        with pytest.raises(SettingInvalid) as caught:
            reach.wish(chosen(allow_host_ports=ports), room)
        assert caught.value.details["setting"] == "allow.host_ports"
    with pytest.raises(RuleInvalid):
        reach.wish(chosen(allow_addresses="10.0.0.0/33"), room)


def test_what_the_user_should_know() -> None:
    works, absent = libslirp.Support(True, "4.7.0", ""), libslirp.probe("libslirp.so.none")
    assert reach.remarks(chosen(), works) == []
    assert reach.absent(works) == []
    (wall,) = reach.absent(absent)
    assert (wall.name, wall.active) == ("network", False)
    assert reach.remarks(chosen(network=Network.OFFLINE), works) == []
    (missing,) = reach.remarks(chosen(), absent)
    assert "libslirp cannot be loaded" in missing
    assert "this host's loopback" in missing
    assert "Install libslirp" in missing
    assert reach.remarks(chosen(network=Network.PROXY), works) == []
    assert "as closed as" in reach.remarks(chosen(network=Network.PROXY), absent)[1]
    (idle,) = reach.remarks(chosen(network=Network.OFFLINE, allow_host_ports="1"), works)
    assert "no effect" in idle
