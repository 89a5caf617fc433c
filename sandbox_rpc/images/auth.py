"""The Authorization header of a registry: Basic, or a Bearer token from where it says.

As in the distribution project's token specification, but what a registry says is not trusted: the
place of the tokens must be one that this registry may have, and the scope is what we want, not what
it asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from sandbox_rpc.images import credentials, http
from sandbox_rpc.images.credentials import Found
from sandbox_rpc.images.http import Client, Transient
from sandbox_rpc.images.reference import host_of, is_loopback
from sandbox_rpc.protocol.errors import DownloadFailed

MAX_TOKEN = 1 << 20
CLIENT_ID = "sandbox-rpc"
SHARED_SUFFIXES = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
"""Second labels that many countries sell names below: `example.co.uk`."""


class Authority:
    """What one registry wants to see for one repository; a token is for no other."""

    def __init__(self, client: Client, registry: str, scope: str) -> None:
        self._client = client
        self._registry = registry
        self._scope = scope
        self._found: Found | None = None
        self._header: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """For a request to the registry itself."""
        return {"Authorization": self._header} if self._header else {}

    def answer(self, challenge: str) -> None:
        """Get what a 401 asks for; the next request takes it along.

        Raises:
            DownloadFailed: it cannot be had, or must not be asked for where the registry says.
            Transient: the token's server does not answer.
        """
        scheme, fields = parse_challenge(challenge)
        if self._found is None:
            self._found = credentials.find(self._registry)
        login = self._found.login
        if scheme == "basic":
            if login is None or not login.user:
                raise self.refused("It wants a name and a password.")
            self._header = login.basic
        elif scheme == "bearer":
            self._header = f"Bearer {self._token(fields)}"
        else:
            raise DownloadFailed(
                f"{self._registry} wants a login of a kind that is not known here: {scheme!r}."
            )

    def refused(self, why: str) -> DownloadFailed:
        """The error of a registry that lets us not in."""
        problem = self._found.problem if self._found else ""
        known = self._found is not None and self._found.login is not None
        hint = (
            "The login that was found for it does not do; log in again"
            if known
            else "If the image is not public, log in"
        )
        return DownloadFailed(
            f"{self._registry} refuses access. {why}",
            hint=f"{hint}: docker login {self._registry}{f' ({problem})' if problem else ''}",
            registry=self._registry,
        )

    def _token(self, fields: Mapping[str, str]) -> str:
        assert self._found is not None
        realm, login = fields.get("realm", ""), self._found.login
        check_realm(self._registry, realm, with_login=login is not None)
        query = {"service": fields.get("service", ""), "scope": self._scope}
        query = {key: value for key, value in query.items() if value}
        headers: dict[str, str] = {}
        method, url, body = "GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", None
        if login is not None and login.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "client_id": CLIENT_ID,
            }
            method, url, body = "POST", realm, urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif login is not None:
            headers["Authorization"] = login.basic
        # Not followed: a redirect could lead the login anywhere.
        with self._client.open(method, url, headers=headers, body=body) as response:
            text = http.read_limited(response, MAX_TOKEN, f"The answer of {http.shown(realm)}")
            if response.status in (400, 401, 403):
                raise self.refused("It gives no token.")
            if response.status != 200:
                raise Transient(f"{http.shown(realm)}: status {response.status}")
        try:
            said = json.loads(text)
            token = said.get("token") or said.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise DownloadFailed(f"{http.shown(realm)} answered with something that is no token.")
        return token


def parse_challenge(text: str) -> tuple[str, dict[str, str]]:
    """Scheme and fields of a WWW-Authenticate header, both in lower case."""
    scheme, _, rest = text.strip().partition(" ")
    pairs = re.findall(r'([A-Za-z_-]+)=(?:"([^"]*)"|([^\s,"]+))', rest)
    return scheme.lower(), {key.lower(): quoted or bare for key, quoted, bare in pairs}


def check_realm(registry: str, realm: str, *, with_login: bool) -> None:
    """See that a registry may name this place for its tokens.

    It must be https, or plain http on loopback where the registry itself is on loopback. A login
    goes only to the registry's own host or one beside or below it: `auth.example.com` for
    `registry.example.com`.

    Raises:
        DownloadFailed: it may not.
    """
    parts = http.split(realm)
    own, host = host_of(registry).lower(), (parts.hostname or "").lower()
    fine = bool(host) and parts.username is None and not parts.fragment
    if parts.scheme == "http" or is_loopback(host):
        fine = fine and is_loopback(own) and is_loopback(host)
    elif parts.scheme != "https":
        fine = False
    if not fine:
        raise DownloadFailed(
            f"{registry} sends us for a token to a place that is refused: {http.shown(realm)}.",
            registry=registry,
        )
    if with_login and not _is_of(own, host):
        raise DownloadFailed(
            f"{registry} wants its login sent to {urlsplit(realm).hostname}, which is refused.",
            hint="Log out of it (docker logout) if the image is public.",
            registry=registry,
        )


def _is_of(registry: str, host: str) -> bool:
    if host == registry or host.endswith(f".{registry}"):
        return True
    if is_loopback(registry) and is_loopback(host):
        return True
    if re.fullmatch(r"[0-9.]+|.*:.*", registry):
        return False
    parent = registry.partition(".")[2]
    labels = parent.split(".")
    if len(labels) < 2 or (len(labels) == 2 and labels[0] in SHARED_SUFFIXES):
        return False
    return host == parent or host.endswith(f".{parent}")
