"""What a guest may reach."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from sandbox_rpc.network.policy import (
    ICMP,
    MEMORY,
    TCP,
    UDP,
    Mode,
    Policy,
    Rule,
    Terms,
    parse_rule,
)
from sandbox_rpc.protocol.errors import RuleInvalid

OWN = (IPv4Network("127.0.0.0/8"), IPv4Network("9.9.9.2/32"), IPv4Network("192.168.1.5/32"))


def allowed(
    policy: Policy, address: str, port: int = 80, protocol: int = TCP, *, opens: bool = True
) -> bool:
    verdict = policy.judge(IPv4Address(address).packed, protocol, port, opens=opens)
    assert verdict == policy.judge(IPv4Address(address).packed, protocol, port, opens=opens)
    assert bool(verdict.reason) != verdict.allowed
    return verdict.allowed


def policy(mode: Mode = Mode.OPEN, **terms: object) -> Policy:
    made = Policy(Terms(mode, **terms))  # type: ignore[arg-type]
    made.set_own(OWN)
    return made


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(map(parse_rule, texts))


def test_open_is_the_internet_without_the_host() -> None:
    one = policy()
    for protocol in (TCP, UDP, ICMP):
        assert allowed(one, "1.1.1.1", 53, protocol)
        for closed in (
            "127.0.0.1", "9.9.9.2", "192.168.1.5", "192.168.1.6", "10.0.2.77", "10.0.2.0",
            "10.0.2.255", "169.254.169.254", "224.0.0.251", "255.255.255.255",
        ):  # fmt: skip
            assert not allowed(one, closed, 80, protocol), closed


def test_own_addresses_change() -> None:
    one = policy()
    assert allowed(one, "9.9.7.7")
    assert IPv4Address("9.9.7.7").packed in one.open
    one.set_own((*OWN, IPv4Network("9.9.7.7/32")))
    assert IPv4Address("9.9.7.7").packed not in one.open
    assert not allowed(one, "9.9.7.7")
    one.set_own(OWN)
    assert allowed(one, "9.9.7.7")


@pytest.mark.parametrize("mode", [Mode.OFFLINE, Mode.PROXY])
def test_the_other_modes_open_nothing(mode: Mode) -> None:
    one = policy(
        mode,
        allow=rules("192.168.0.0/16", "8.8.8.8"),
        host_ports=frozenset({5432}),
        pins=frozenset({(IPv4Address("10.1.1.1"), 443)}),
    )
    for address, port in (("1.1.1.1", 80), ("192.168.1.6", 80), ("8.8.8.8", 53), ("10.0.2.2", 5432),
                          ("10.1.1.1", 443), ("10.0.2.3", 53)):  # fmt: skip
        assert not allowed(one, address, port)
        assert not allowed(one, address, port, UDP)
    assert not allowed(one, "10.0.2.2", 22)
    assert allowed(one, "10.0.2.2", 40000, opens=False), "what came in is answered"
    assert not one.open


def test_the_route_to_the_proxy() -> None:
    route = frozenset({(IPv4Address("10.0.2.100"), 8888)})
    one = policy(Mode.PROXY, routes=route)
    assert allowed(one, "10.0.2.100", 8888)
    assert not allowed(one, "10.0.2.100", 8888, UDP)
    assert not allowed(one, "10.0.2.100", 80)
    assert not allowed(policy(Mode.PROXY), "10.0.2.100", 8888)


def test_dns_is_ten_two_three_and_its_port_alone() -> None:
    one = policy()
    assert allowed(one, "10.0.2.3", 53, UDP)
    assert allowed(one, "10.0.2.3", 53, TCP)
    assert not allowed(one, "10.0.2.3", 80)
    assert not allowed(one, "10.0.2.2", 53, UDP)
    assert allowed(one, "10.0.2.2", 0, ICMP)


def test_dhcp_only_where_it_is_wanted() -> None:
    assert not allowed(policy(), "255.255.255.255", 67, UDP)
    one = policy(Mode.OFFLINE, dhcp=True)
    assert allowed(one, "255.255.255.255", 67, UDP)
    assert allowed(one, "10.0.2.2", 67, UDP)
    assert not allowed(one, "10.0.2.2", 69, UDP), "no TFTP"


def test_a_port_of_the_hosts_loopback() -> None:
    one = policy(host_ports=frozenset({5432}))
    assert allowed(one, "10.0.2.2", 5432)
    assert not allowed(one, "10.0.2.2", 5433)
    assert not allowed(one, "10.0.2.2", 5432, UDP)
    assert not allowed(one, "127.0.0.1", 5432)


def test_a_range_opens_what_is_private_but_not_the_host() -> None:
    one = policy(allow=rules("192.168.1.0/24", "0.0.0.0/0"))
    assert allowed(one, "192.168.1.6")
    assert allowed(one, "10.7.7.7")
    for closed in ("192.168.1.5", "9.9.9.2", "127.0.0.1", "169.254.169.254", "100.100.100.200",
                   "224.0.0.1", "10.0.2.2", "10.0.2.77", "0.0.0.0"):  # fmt: skip
        assert not allowed(one, closed), closed


def test_an_exact_address_opens_even_one_of_the_host() -> None:
    one = policy(allow=rules("192.168.1.5:5432", "169.254.169.254"))
    assert allowed(one, "192.168.1.5", 5432)
    assert allowed(one, "192.168.1.5", 5432, UDP)
    assert not allowed(one, "192.168.1.5", 5433)
    assert not allowed(one, "192.168.1.5", 5432, ICMP)
    assert allowed(one, "169.254.169.254")
    assert not one.open & {IPv4Address("192.168.1.5").packed}, "a port rule is no free pass"


def test_a_registry_is_pinned_to_address_and_port() -> None:
    one = policy(pins=frozenset({(IPv4Address("10.1.1.1"), 443), (IPv4Address("9.9.9.2"), 443)}))
    assert allowed(one, "10.1.1.1", 443)
    assert allowed(one, "9.9.9.2", 443)
    assert not allowed(one, "10.1.1.1", 80)
    assert not allowed(one, "10.1.1.1", 443, UDP)
    assert not allowed(one, "10.1.1.2", 443)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "127.0.0.1", "127.0.0.0/8", "224.0.0.1", "0.0.0.0", "1.2.3.4:", "1.2.3.4:0",
     "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:²", "192.168.1.7/24", "::1", "1.2.3.4:5:6"],
)  # fmt: skip
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(RuleInvalid) as caught:
        parse_rule(text)
    assert caught.value.hint


def test_rules_that_are() -> None:
    assert parse_rule("192.168.1.7") == Rule(IPv4Network("192.168.1.7/32"))
    assert parse_rule(" 10.0.0.0/8:443 ") == Rule(IPv4Network("10.0.0.0/8"), 443)


def test_a_scan_does_not_grow_the_memory() -> None:
    one = policy()
    random_ = random.Random(4)
    for _ in range(MEMORY + 5000):
        one.judge(random_.randbytes(4), TCP, random_.randrange(65536), opens=True)
    assert len(one.open) <= MEMORY
    assert not allowed(one, "9.9.9.2")
    assert allowed(one, "9.9.9.3")
