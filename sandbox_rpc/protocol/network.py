"""What the `network/` methods say: a sandbox's allowlist, and what went through its proxy."""

from __future__ import annotations

from attrs import field, frozen

from sandbox_rpc.protocol.types import LARGE


@frozen
class NetworkList:
    """Rules that an allowlist names together."""

    name: str
    """As a line has it: `@git`."""
    about: str
    """What it is, a noun phrase."""
    used: bool
    """Whether the allowlist names it."""
    rules: list[str]
    """Its own lines."""


@frozen
class RuleProblem:
    """A line of an allowlist that says nothing."""

    file: str
    """Which of the two files."""
    line: int
    """Its number, from 1."""
    message: str
    """What is wrong."""


@frozen
class Blocked:
    """A request that was refused: of a program in the guest, by the proxy."""

    name: str
    """The sandbox."""
    host: str
    """Whom it was for."""
    port: int
    """At which port."""
    reason: str
    """`unlisted`, `blocked`, `port`, `private`, `sni-mismatch` ...; there may come more."""
    method: str
    """Of the request; CONNECT is a tunnel, TLS as a rule."""
    time: str
    """ISO 8601; of the last one, where there were several."""
    count: int
    """How many of the same there have been."""
    sequence: int = field(metadata=LARGE)
    """Grows with each one that is news."""
    rule: str | None = None
    """The line that decided; `blocked` ones need not be told to anybody."""


@frozen
class NetworkState:
    """A sandbox's network, as far as it is decided by an allowlist."""

    name: str
    """The sandbox."""
    mode: str | None = None
    """`open`, `proxy` or `offline`; absent where it does not run."""
    proxy_url: str | None = None
    """Where programs in the guest find the proxy."""
    rules: list[str] = field(factory=list)
    """The lines of the allowlist."""
    once: list[str] = field(factory=list)
    """Further ones, until the machine ends."""
    lists: list[NetworkList] = field(factory=list)
    """What `@` lines stand for."""
    problems: list[RuleProblem] = field(factory=list)
    """Lines that say nothing."""
    connections: int | None = None
    """Of the guest to the proxy, now."""
    served: int | None = field(default=None, metadata=LARGE)
    """Of the guest to the proxy, since it was started."""
    upstream: str | None = None
    """Another proxy that it goes through."""
    blocked: list[Blocked] = field(factory=list)
    """What was refused lately, equal ones together."""
    allowlist_file: str = ""
    """The allowlist; may be edited."""
    log_file: str = ""
    """The audit: one JSON object for each request."""


@frozen
class NetworkAllowParams:
    """Rules to allow; `name` or `workspace` says for whom."""

    rules: list[str]
    """Lines of an allowlist: `github.com`, `*.github.com`, `.github.com`, any with `:PORT`."""
    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""
    once: bool = False
    """Until its machine ends, instead of for good."""


@frozen
class NetworkBlockParams:
    """Rules to block, whatever allows them; `name` or `workspace` says for whom."""

    rules: list[str]
    """Lines of an allowlist, without the `!`."""
    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""
    once: bool = False
    """Until its machine ends, instead of for good."""


@frozen
class NetworkResetParams:
    """What to forget of an allowlist; `name` or `workspace` says whose."""

    rules: list[str] = field(factory=list)
    """Lines to forget, allowed or blocked; none: all, so that it is as at first."""
    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""


@frozen
class NetworkRules:
    """An allowlist after a change."""

    rules: list[str]
    """Its lines."""
    once: list[str]
    """Further ones, until the machine ends."""
    cut: int = 0
    """Open connections that were ended by the change."""
    notes: list[str] = field(factory=list)
    """What the user should know: a rule that another one still blocks."""


@frozen
class NetworkLogParams:
    """Which part of the audit; `name` or `workspace` says whose."""

    name: str | None = None
    """Its name."""
    workspace: str | None = None
    """Its folder, where there is no name."""
    limit: int = 100
    """As many of the latest lines, at most 10000."""
    blocked: bool = False
    """Only what was refused."""


@frozen
class NetworkLogEntry:
    """One request that is over."""

    id: int
    """Its number in the life of the proxy's process."""
    time: str
    """ISO 8601; when it was over."""
    method: str
    """`CONNECT` is a tunnel, TLS as a rule."""
    host: str
    """Whom it was for."""
    port: int
    """At which port; 0 where it named none."""
    allowed: bool
    """Whether the rules and the checks let it through."""
    rule: str | None = None
    """The line that decided."""
    reason: str | None = None
    """Why it was refused, or did not work."""
    address: str | None = None
    """What was dialled."""
    sni: str | None = None
    """Whom TLS named."""
    status: int | None = None
    """HTTP status of the answer."""
    up: int = field(default=0, metadata=LARGE)
    """Bytes from the guest."""
    down: int = field(default=0, metadata=LARGE)
    """Bytes to the guest."""
    seconds: float = 0.0
    """How long it took."""
