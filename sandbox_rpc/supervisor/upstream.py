"""The proxy that this host itself goes through, for the sandbox's proxy to go through. Pure."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sandbox_rpc.config.values import Settings
from sandbox_rpc.network.proxy import hostname
from sandbox_rpc.network.proxy.hostname import NoHost
from sandbox_rpc.network.proxy.settings import Upstream
from sandbox_rpc.protocol.errors import SettingInvalid

VARIABLES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
"""In the order in which they count; CGI programs make HTTP_PROXY of a header, we are none."""
DEFAULT_PORT = 3128
MAX_AUTH = 4096


def find(settings: Settings, environment: Mapping[str, str]) -> tuple[Upstream | None, list[str]]:
    """The proxy that the settings or the environment name, and warnings.

    Raises:
        SettingInvalid: the settings name none that can be used.
    """
    wanted = settings.proxy_upstream
    if wanted == "none":
        return None, []
    direct = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    entries = tuple(filter(None, (entry.strip() for entry in direct.split(","))))
    if wanted != "auto":
        found = _parse(wanted, entries)
        if isinstance(found, str):
            raise _invalid("proxy.upstream", f"{wanted} {found}.")
        authorization = _from_file(settings.proxy_upstream_auth)
        return found._replace(authorization=authorization or found.authorization), []
    for name in VARIABLES:
        if value := environment.get(name, "").strip():
            found = _parse(value, entries)
            if isinstance(found, str):
                return None, [f"{name} of this host {found}, so the sandbox's proxy ignores it."]
            return found, []
    return None, []


def _parse(text: str, direct: tuple[str, ...]) -> Upstream | str:
    """The proxy of an address, or what is wrong with it without what may be a password."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = hostname.canonical(parts.hostname or ""), parts.port
        user, password = parts.username, parts.password
    except (ValueError, NoHost):
        return "is no address of a proxy"
    if parts.scheme != "http":
        return f"names a proxy of kind {parts.scheme[:20]!r}, and only http is known"
    authorization = ""
    if user is not None:
        authorization = _basic(f"{unquote(user)}:{unquote(password or '')}")
    return Upstream(host, DEFAULT_PORT if port is None else port, authorization, direct)


def _from_file(path: str) -> str:
    if not path:
        return ""
    key = "proxy.upstream_auth"
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise _invalid(key, f"{path} can be read by others.", f"chmod 600 {path}")
            text = file.read(MAX_AUTH).decode()
    except OSError as error:
        raise _invalid(key, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise _invalid(key, f"{path} is no text.") from None
    line = text.strip()
    if ":" not in line or not line.isprintable():
        raise _invalid(key, f"{path} does not hold one line USER:PASSWORD.")
    return _basic(line)


def _basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _invalid(key: str, message: str, hint: str | None = None) -> SettingInvalid:
    return SettingInvalid(message, hint=hint, setting=key)
