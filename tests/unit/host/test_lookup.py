"""Looking up names."""

from __future__ import annotations

import socket
import threading

import pytest

from sandbox_rpc.host import lookup


def test_names_and_addresses() -> None:
    found = lookup.addresses(["localhost", "192.0.2.7", "", "no such name", "x" * 300])
    assert found["192.0.2.7"] == ("192.0.2.7",)
    assert "127.0.0.1" in found["localhost"]
    assert set(found) <= {"localhost", "192.0.2.7"} | {""}


def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are found all the same, and nobody waits for it."""
    never = threading.Event()
    real = socket.getaddrinfo

    def look(name: str, *rest: object) -> object:
        if name == "slow.example":
            never.wait(60)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    try:
        found = lookup.addresses(["slow.example", "192.0.2.7"], limit_s=0.2)
    finally:
        never.set()
    assert found == {"192.0.2.7": ("192.0.2.7",)}
