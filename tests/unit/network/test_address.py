"""Which addresses are the internet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from sandbox_rpc.network.address import obstacle


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "126.255.255.255", "128.0.0.1",
                                     "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1",
                                     "192.167.1.1", "223.255.255.254"])  # fmt: skip
def test_the_internet_is_open(address: str) -> None:
    assert obstacle(address) is None
    assert obstacle(IPv4Address(address)) is None
    assert obstacle(IPv6Address("2606:4700:4700::1111")) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
        "100.100.100.200", "127.0.0.1", "127.255.0.1", "168.63.129.16", "169.254.0.1",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1",
        "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
        "203.0.113.7", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_all_else_is_not(address: str) -> None:
    assert obstacle(address)
    plain = int(IPv4Address(address))
    assert obstacle(IPv6Address(0xFFFF << 32 | plain)), "mapped into IPv6"
    assert obstacle(IPv6Address(plain)), "compatible"
    assert obstacle(IPv6Address((0x0064FF9B << 96) | plain)), "NAT64"
    assert obstacle(IPv6Address((0x2002 << 112) | (plain << 80))), "6to4"


@pytest.mark.parametrize(
    "address",
    ["::", "::1", "fe80::1", "fec0::2", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
     "2001::1", "100::1", "64:ff9b:1::1"],
)  # fmt: skip
def test_nor_are_these_of_ipv6(address: str) -> None:
    assert obstacle(address)


def test_public_addresses_in_old_wrappings() -> None:
    assert obstacle("64:ff9b::909:909") is None
    assert obstacle("::ffff:9.9.9.9"), "a mapped address has no business on a wire"


def test_what_is_no_address() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        obstacle("127.1")
