"""apt: sources.list, *.list, *.sources, and the few options that fetching depends on."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator

from attrs import frozen

from sandbox_rpc.host.registries.sources import Sources
from sandbox_rpc.host.registries.url import Kind, Registry

LIMIT_S = 2.0
MAX_FILES = 100
DEBIAN = "debian"
SECURITY = "debian-security"
PROXY = "proxy"
_SETTING = re.compile(r'^([\w:./-]+) "([^"]*)";$')
_PASSED = re.compile(r"^Acquire::(Check-Valid-Until|Check-Date)$", re.IGNORECASE)
_PROXY = re.compile(r"^Acquire::(https?)::Proxy(::[\w.-]+)?$", re.IGNORECASE)
_AUTHORITY = re.compile(r"^Acquire::https(::[\w.-]+)?::CaInfo$", re.IGNORECASE)


@frozen
class Source:
    """One repository as a file names it."""

    uri: str
    suite: str
    signed_by: str = ""


@frozen
class Apt:
    """What apt knows."""

    registries: tuple[Registry, ...]
    options: tuple[str, ...]
    """Lines of apt.conf: proxies and what concerns dates."""


def read(sources: Sources) -> Apt:
    """The host's repositories; empty where it has no apt."""
    registries: list[Registry] = []
    seen: set[str] = set()
    for source in _repositories(sources):
        registry = sources.registry(Kind.APT, source.uri, _role(sources, source))
        for one in registry:
            # The first one of each of Debian's archives is where a guest gets it.
            if one.role and one.role in seen:
                registry = sources.registry(Kind.APT, source.uri)
            seen.add(one.role)
        registries += registry
    options, proxies = _options(sources) if registries else ([], [])
    return Apt((*registries, *proxies), tuple(options))


def _repositories(sources: Sources) -> Iterator[Source]:
    folder = sources.system("etc/apt")
    files = [folder / "sources.list"]
    with contextlib.suppress(OSError):
        files += sorted((folder / "sources.list.d").iterdir())[:MAX_FILES]
    for file in files:
        if file.suffix == ".list":
            yield from _lines(sources.text(file))
        elif file.suffix == ".sources":
            yield from _stanzas(sources.text(file))


def _lines(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)", line.partition("#")[0])
        if found:
            signed = re.search(r"signed-by=(\S+)", found[1] or "", re.IGNORECASE)
            yield Source(found[2], found[3], signed[1] if signed else "")


def _stanzas(text: str) -> Iterator[Source]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", kept):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, fields.get("signed-by", ""))


def _role(sources: Sources, source: Source) -> str:
    """Which of Debian's archives a repository is; by what its signed Release says, not its name."""
    place = re.sub(r"^[a-z+]+://([^/@]*@)?", "", source.uri).rstrip("/").replace("/", "_")
    lists = sources.system("var/lib/apt/lists")
    suite = source.suite.strip("/").replace("/", "_")
    for name in (f"{place}_dists_{suite}_InRelease", f"{place}_dists_{suite}_Release"):
        if len(name) > 250 or "\0" in name:
            break
        head = sources.text(lists / name)[:4096]
        if head:
            if not re.search(r"^Origin: Debian$", head, re.MULTILINE):
                return ""
            label = re.search(r"^Label: (.+)$", head, re.MULTILINE)
            roles = {"Debian": DEBIAN, "Debian-Security": SECURITY}
            return roles.get(label[1].strip() if label else "", "")
    # Never fetched, or cleaned away: only what the archive's own keys sign can be Debian, or what
    # a Debian's list names for its own release without saying which keys.
    if re.search(r"debian-archive[\w.-]*$", source.signed_by) or (
        not source.signed_by and _is_release(sources, source.suite)
    ):
        kind = source.suite.replace("-updates", "")
        return SECURITY if re.search(r"[-/](security|updates/?)$", kind) else DEBIAN
    return ""


def _is_release(sources: Sources, suite: str) -> bool:
    text = sources.text(sources.system("etc/os-release"))
    fields = dict(re.findall(r'^(ID|VERSION_CODENAME)="?([\w-]+)"?$', text, re.MULTILINE))
    name = re.match(r"[a-z]+", suite)
    if fields.get("ID") != "debian" or name is None:
        return False
    return name[0] == fields.get("VERSION_CODENAME")


def _options(sources: Sources) -> tuple[list[str], list[Registry]]:
    options: list[str] = []
    proxies: list[Registry] = []
    for line in _dump(sources).splitlines():
        found = _SETTING.match(line)
        if not found:
            continue
        name, value = found[1], found[2]
        if _PASSED.match(name) and value.lower() in ("true", "false", "yes", "no", "0", "1"):
            options.append(line)
        elif _AUTHORITY.match(name):
            sources.bundle(value)
        elif _PROXY.match(name):
            if value.upper() == "DIRECT":
                options.append(line)
                continue
            for one in sources.registry(Kind.APT, value, PROXY):
                proxies.append(one)
                options.append(f'{name} "{one.url}";')
    return options, proxies


def _dump(sources: Sources) -> str:
    tool = shutil.which("apt-config", path=sources.environment.get("PATH", os_path()))
    if tool is None:
        return ""
    environment = {
        name: value for name, value in sources.environment.items() if name in ("PATH", "APT_CONFIG")
    }
    try:
        done = subprocess.run(
            [tool, "dump"], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LIMIT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        sources.warn("apt's configuration could not be read: apt-config failed.")
        return ""
    return done.stdout.decode(errors="replace")


def os_path() -> str:
    """Where programs are that a user without PATH finds."""
    return "/usr/bin:/bin"
