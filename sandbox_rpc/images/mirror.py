"""Where this host gets Debian from: an image is built from the same mirror, whatever it is.

Read at run time from the host's own apt, so no address is written down here, and a company's mirror
is followed without a setting.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from attrs import frozen

from sandbox_rpc.host import process
from sandbox_rpc.protocol.errors import ToolMissing


@frozen
class Mirror:
    """Debian's archives as this host reaches them."""

    archive: str
    """Base URI of the main archive."""
    security: str | None
    """Base URI of the security archive."""
    apt_options: Sequence[str] = ()
    """Lines of apt.conf that fetching needs: proxy, certificates, checks of dates."""

    def sources(self, suite: str) -> list[str]:
        """Lines of sources.list for `suite`."""
        lines = [
            f"deb {self.archive} {suite} main",
            f"deb {self.archive} {suite}-updates main",
        ]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return lines


def parse(targets: str, configuration: str = "") -> Mirror | None:
    """The mirror that `apt-get indextargets` and `apt-config dump` describe, None without Debian's.

    A repository counts by what its signed Release file says (origin and label), not by its address.
    """
    archive = security = None
    for block in targets.split("\n\n"):
        fields = _fields(block)
        if fields.get("Origin") != "Debian" or fields.get("Created-By") != "Packages":
            continue
        if "main" not in fields.get("Component", "").split():
            continue
        uri = fields.get("Repo-URI", "")
        if not uri.startswith(("http://", "https://", "file:")):
            continue
        # backports and proposed-updates have labels of their own or come from the same place.
        if fields.get("Label") == "Debian":
            archive = archive or uri
        elif fields.get("Label") == "Debian-Security":
            security = security or uri
    if archive is None:
        return None
    return Mirror(archive, security, _options(configuration))


def _fields(block: str) -> Mapping[str, str]:
    pairs = (line.split(": ", 1) for line in block.splitlines() if ": " in line)
    return {name.strip(): value.strip() for name, value in pairs}


_OPTION = re.compile(
    r"^Acquire::(https?(::[\w./:-]+)?::(Proxy|CaInfo|CaPath|Verify-Peer|Verify-Host)"
    r'|Check-Valid-Until|Check-Date|Retries) "[^"]+";$'
)


def _options(configuration: str) -> list[str]:
    return [line for line in configuration.splitlines() if _OPTION.match(line)]


async def find(wanted: str) -> Mirror | None:
    """The mirror to build from: `wanted` (the setting build.mirror), else this host's own.

    A mirror named by the user is taken for the main archive; security updates keep coming from
    where this host gets them, as few mirrors carry them.
    """
    own = await detect()
    if not wanted:
        return own
    return Mirror(wanted, own.security if own else None, own.apt_options if own else ())


async def detect() -> Mirror | None:
    """This host's mirror of Debian; None where its apt knows none."""
    try:
        targets = await process.run(["apt-get", "indextargets"])
        configuration = await process.run(["apt-config", "dump"])
    except (ToolMissing, subprocess.CalledProcessError):
        return None
    return parse(
        targets.stdout.decode(errors="replace"), configuration.stdout.decode(errors="replace")
    )
