"""What a guest may reach, decided by address, protocol and port. Pure.

It runs without site-packages inside its own box, hence no attrs in this room's process.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from sandbox_rpc.network.address import METADATA, NEVER, obstacle
from sandbox_rpc.protocol.errors import RuleInvalid

NETWORK = IPv4Network("10.0.2.0/24")
ROUTER = IPv4Address("10.0.2.2")
NAMESERVER = IPv4Address("10.0.2.3")
GUEST = IPv4Address("10.0.2.15")
PROXY = IPv4Address("10.0.2.100")
PROXY_PORT = 8888
BROADCAST = IPv4Address("255.255.255.255")

ICMP, TCP, UDP = 1, 6, 17
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}
DNS_PORT = 53
DHCP_PORT = 67
MEMORY = 65536
"""Decisions remembered; a guest that scans makes us forget, not grow."""


class Mode(enum.StrEnum):
    """How much of the world a guest sees."""

    OPEN = "open"
    """The internet, and nothing of the host or its networks."""
    PROXY = "proxy"
    """The allowlist's proxy and nothing else."""
    OFFLINE = "offline"
    """Nothing; SSH still comes in."""


class Rule(NamedTuple):
    """An exception: an address or a range, all ports or one."""

    network: IPv4Network
    port: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether it names a single address."""
        return self.network.prefixlen == 32


def parse_rule(text: str) -> Rule:
    """`192.168.1.7`, `192.168.1.0/24`, either with `:PORT`.

    Raises:
        RuleInvalid: it is none of these, or names what is never opened.
    """
    place, colon, port = text.strip().partition(":")
    hint = "Write ADDRESS, ADDRESS/BITS or one of them with :PORT, such as 192.168.1.7:5432."
    try:
        network = IPv4Network(place)
        number = int(port) if colon and port.isascii() and port.isdigit() else None
    except ValueError as error:
        raise RuleInvalid(f"{text!r} names no network: {error}.", hint=hint, rule=text) from None
    if colon and (number is None or not 0 < number < 65536):
        raise RuleInvalid(f"{text!r} names no port.", hint=hint, rule=text)
    for closed in NEVER:
        if network.subnet_of(closed):
            raise RuleInvalid(
                f"{text!r} cannot be opened: {obstacle(network.network_address)}.",
                hint="A port of the host's loopback is opened by allow.host_ports.",
                rule=text,
            )
    return Rule(network, number)


class Terms(NamedTuple):
    """What the settings and the host's registries say."""

    mode: Mode
    allow: tuple[Rule, ...] = ()
    """Exceptions in `open`. A range opens private addresses in it, but neither the host's own nor
    metadata addresses; those open by their exact address."""
    host_ports: frozenset[int] = frozenset()
    """Ports of the host's loopback that the guest reaches as 10.0.2.2."""
    pins: frozenset[tuple[IPv4Address, int]] = frozenset()
    """Registries of the host's own configuration: exactly this address and TCP port."""
    routes: frozenset[tuple[IPv4Address, int]] = frozenset()
    """Addresses in the guest's network behind which a unix socket of the host is, the proxy's."""
    dhcp: bool = False


class Verdict(NamedTuple):
    """A decision."""

    allowed: bool
    reason: str
    """Why it was refused, as a phrase."""
    always: bool = False
    """Whether it holds for every protocol and port of the address."""


_YES = Verdict(True, "")
_ALWAYS = Verdict(True, "", always=True)


class Policy:
    """Decides, and remembers what it decided until the host's own addresses change."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.own: tuple[IPv4Network, ...] = ()
        """This host's addresses and broadcast addresses, as of the last `set_own`."""
        self.open: set[bytes] = set()
        """Packed addresses that are allowed whatever the protocol; for the fast path."""
        self._known: dict[tuple[bytes, int, int, bool], Verdict] = {}

    def set_own(self, networks: Iterable[IPv4Network]) -> None:
        """Take the addresses that are this host's at the moment; single ones are /32."""
        self.own = tuple(networks)
        self.open.clear()
        self._known.clear()

    def judge(self, destination: bytes, protocol: int, port: int, *, opens: bool) -> Verdict:
        """Whether a packet may go to a packed address.

        `opens` is true for a TCP segment that begins a connection, and for all that is not TCP.
        """
        key = (destination, protocol, port, opens)
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._judge(IPv4Address(destination), protocol, port, opens=opens)
            if len(self._known) >= MEMORY:
                self._known.clear()
                self.open.clear()
            self._known[key] = verdict
            if verdict.always:
                self.open.add(destination)
        return verdict

    def _judge(self, to: IPv4Address, protocol: int, port: int, *, opens: bool) -> Verdict:
        if to in NETWORK or to == BROADCAST:
            return self._judge_virtual(to, protocol, port, opens=opens)
        terms = self.terms
        if terms.mode is not Mode.OPEN:
            return Verdict(False, f"the network is {terms.mode}")
        why = obstacle(to)
        if any(to in network for network in NEVER):
            return Verdict(False, why or "closed")
        if protocol == TCP and (to, port) in terms.pins:
            return _YES
        own = any(to in network for network in self.own)
        closed = own or any(to in network for network in METADATA)
        for rule in terms.allow:
            if to in rule.network and (rule.is_exact or not closed):
                if rule.port is None:
                    return _ALWAYS
                if rule.port == port and protocol in (TCP, UDP):
                    return _YES
        if own:
            return Verdict(False, "an address of the host")
        return Verdict(False, why) if why else _ALWAYS

    def _judge_virtual(self, to: IPv4Address, protocol: int, port: int, *, opens: bool) -> Verdict:
        terms = self.terms
        if protocol == ICMP:
            # libslirp answers for its own two addresses itself.
            return _YES if to in (ROUTER, NAMESERVER) else Verdict(False, "no such address")
        if to in (ROUTER, BROADCAST) and terms.dhcp and protocol == UDP and port == DHCP_PORT:
            return _YES
        if to == ROUTER and protocol == TCP:
            # Connections that came in seem to come from here.
            if not opens:
                return _YES
            if terms.mode is Mode.OPEN and port in terms.host_ports:
                return _YES
            return Verdict(False, "the host's loopback")
        if to == NAMESERVER and port == DNS_PORT and protocol in (TCP, UDP):
            if terms.mode is Mode.OPEN:
                return _YES
            return Verdict(False, f"the network is {terms.mode}: no DNS")
        if protocol == TCP and (to, port) in terms.routes:
            return _YES
        return Verdict(False, "no such address")
