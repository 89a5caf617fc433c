"""What a guest is told about the places packages come from: files for its tools. Pure.

All of it is at the level of the system, below what a user of the guest says in a file or a variable
of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from sandbox_rpc.host.registries.url import Kind, Registry

MARK = "# Written by sandbox, from the configuration of the host."
"""First line of our files; the agent replaces no file that begins otherwise."""
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""The guest's trusted authorities, to which the agent adds ours."""
ADDED = "/etc/ssl/sandbox.pem"
"""Ours alone, for programs that add a file to what they have built in."""


@frozen
class Packages:
    """The part of an identity that concerns packages."""

    files: Mapping[str, str] = field(factory=dict)
    """Content by path."""
    environment: Mapping[str, str] = field(factory=dict)
    """Variables for every session."""
    certificates: tuple[bytes, ...] = ()
    """Authorities to trust, DER."""
    hosts: tuple[tuple[str, str], ...] = ()
    """Lines for /etc/hosts: address, name."""
    apt_mirrors: Mapping[str, str] = field(factory=dict)
    """URLs by archive: `debian`, `debian-security`."""


def configure(
    registries: Sequence[Registry],
    *,
    certificates: tuple[bytes, ...] = (),
    apt_options: Sequence[str] = (),
    hosts: tuple[tuple[str, str], ...] = (),
) -> Packages:
    """The files and variables for these registries.

    What a tool uses anyway where nothing is configured is not written down.
    """
    told = [registry for registry in registries if registry.configured]
    texts = {
        "/etc/pip.conf": _pip(_of(told, Kind.PIP), bool(certificates)),
        "/etc/npmrc": _npm(_of(told, Kind.NPM), bool(certificates)),
        "/.cargo/config.toml": _cargo(_of(told, Kind.CARGO)),
        "/home/dev/.config/go/env": _go(_of(told, Kind.GO)),
        "/etc/apt/apt.conf.d/60sandbox": list(apt_options),
    }
    # Where npm looks depends on who has packed it: Debian, or itself below a prefix.
    for prefix in ("/usr", "/usr/local"):
        texts[f"{prefix}/etc/npmrc"] = texts["/etc/npmrc"]
    environment = {}
    if texts["/etc/npmrc"]:
        environment["npm_config_globalconfig"] = "/etc/npmrc"
    if certificates:
        environment |= {"NODE_EXTRA_CA_CERTS": ADDED, "REQUESTS_CA_BUNDLE": BUNDLE}
    return Packages(
        files={path: "\n".join([MARK, *lines, ""]) for path, lines in texts.items() if lines},
        environment=environment,
        certificates=certificates,
        hosts=hosts,
        apt_mirrors={
            registry.role: registry.url.rstrip("/")
            for registry in _of(told, Kind.APT)
            if registry.role in ("debian", "debian-security")
        },
    )


def _of(registries: Sequence[Registry], kind: Kind) -> list[Registry]:
    return [registry for registry in registries if registry.kind is kind]


def _pip(registries: Sequence[Registry], authorities: bool) -> list[str]:
    lines = [f"index-url = {one.url}" for one in registries if one.role == "index"]
    extra = [one.url for one in registries if one.role == "extra"]
    if extra:
        lines.append(f"extra-index-url = {' '.join(extra)}")
    # The host's user has decided to fetch without encryption; pip wants that said again.
    plain = {_authority(one.url) for one in registries if one.url.startswith("http:")}
    if plain:
        lines.append(f"trusted-host = {' '.join(sorted(plain))}")
    if authorities:
        lines.append(f"cert = {BUNDLE}")
    return ["[global]", *lines] if lines else []


def _authority(url: str) -> str:
    return url.split("/")[2]


def _npm(registries: Sequence[Registry], authorities: bool) -> list[str]:
    lines = [
        f"registry={one.url}" if one.role == "registry" else f"{one.role}:registry={one.url}"
        for one in registries
    ]
    return [*lines, f"cafile={BUNDLE}"] if authorities else lines


def _cargo(registries: Sequence[Registry]) -> list[str]:
    lines = []
    for one in registries:
        if one.role == "crates-io":
            lines += ["[source.crates-io]", 'replace-with = "sandbox-host"']
            lines += ["[source.sandbox-host]", f'registry = "sparse+{one.url}"']
        elif re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", one.role):
            lines += [f"[registries.{one.role}]", f'index = "sparse+{one.url}"']
    return lines


def _go(registries: Sequence[Registry]) -> list[str]:
    urls = [one.url for one in registries]
    return [f"GOPROXY={','.join([*urls, 'direct'])}"] if urls else []
