"""`network/` methods and `network/didBlock`, by the files of a sandbox that seems to run."""

from __future__ import annotations

from sandbox_rpc.network.proxy.journal import Entry, Journal
from tests.contract.conftest import Fake, Serve


def test_an_allowlist_over_the_wire(serve: Serve, fake: Fake) -> None:
    fake()
    service = serve().initialize()
    state = service.call("network/status", {"name": "box"})
    assert "@git" in state["rules"]
    assert {"name": "@git", "used": True}.items() <= state["lists"][0].items()
    changed = service.call("network/allow", {"name": "box", "rules": ["A.example", ".b.example"]})
    assert changed["rules"][-2:] == ["a.example", ".b.example"]
    changed = service.call("network/block", {"name": "box", "rules": ["c.example"], "once": True})
    assert changed["once"] == ["!c.example"]
    changed = service.call("network/reset", {"name": "box", "rules": ["a.example"]})
    assert "a.example" not in changed["rules"]
    error = service.fail("network/allow", {"name": "box", "rules": ["https://a.example/"]})
    assert error["data"]["kind"] == "ruleInvalid"
    assert "alone" in error["data"]["hint"]
    assert service.call("network/log", {"name": "box"}) == []
    error = service.fail("network/log", {"name": "box", "limit": 0})
    assert error["data"]["setting"] == "limit"
    error = service.fail("network/status", {"name": "nobody"})
    assert error["data"]["kind"] == "sandboxNotFound"


def test_refusals_reach_every_client(serve: Serve, fake: Fake) -> None:
    sandbox = fake()
    services = [serve().initialize() for _ in range(2)]
    folder = sandbox.layout.proxy("box").journal
    for service in services:
        service.call("network/status", {"name": "box"})
    journal = Journal(folder)
    journal.write(Entry("CONNECT", "a.example", 443, False, None, "unlisted"))
    journal.flush_blocked()
    for service in services:
        event = service.news("network/didBlock")
        assert (event["name"], event["host"], event["port"]) == ("box", "a.example", 443)
        assert event["reason"] == "unlisted"
        assert event["count"] == 1
        assert "rule" not in event
    (line,) = services[0].call("network/log", {"name": "box", "blocked": True})
    assert line["host"] == "a.example"
    assert line["allowed"] is False
    journal.close()
