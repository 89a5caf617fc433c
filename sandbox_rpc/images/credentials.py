"""Logins that `docker login` and `podman login` have left for a registry. They are never logged.

Read are $REGISTRY_AUTH_FILE, podman's auth.json and docker's config.json, with the credential
helpers they name (docker's credential-helpers protocol: the registry on stdin of `get`, JSON back).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sandbox_rpc.host.paths import home

HELPER_LIMIT_S = 30


@frozen
class Login:
    """One login: a name and password, or a token to be exchanged for others."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@frozen
class Found:
    """What was found for a registry, and what was in the way."""

    login: Login | None = None
    problem: str = ""
    """For the hint of an error: a helper that failed, a file that is damaged."""


def find(registry: str, environment: Mapping[str, str] = os.environ) -> Found:
    """The login for a registry (`host` or `host:port`)."""
    problems = []
    for path in files(environment):
        try:
            data = json.loads(path.read_bytes())
            if not isinstance(data, dict):
                raise ValueError("not an object")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{path} cannot be used: {error}")
            continue
        found = _in_file(data, registry, environment)
        if found.login is not None:
            return found
        if found.problem:
            problems.append(found.problem)
    return Found(None, "; ".join(problems))


def files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where logins are kept, the first one first."""
    if path := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(path)
    if folder := environment.get("XDG_RUNTIME_DIR"):
        yield Path(folder, "containers", "auth.json")
    if folder := environment.get("DOCKER_CONFIG"):
        yield Path(folder, "config.json")
    elif (user := home()) is not None:
        yield user / ".docker" / "config.json"


def _in_file(data: Mapping[str, Any], registry: str, environment: Mapping[str, str]) -> Found:
    helpers = data.get("credHelpers")
    helper = _lookup(helpers, registry) if isinstance(helpers, dict) else None
    helper = helper or data.get("credsStore")
    if isinstance(helper, str) and helper:
        found = _ask(helper, registry, environment)
        if found.login is not None or found.problem:
            return found
    logins = data.get("auths")
    entry = _lookup(logins, registry) if isinstance(logins, dict) else None
    if not isinstance(entry, dict):
        return Found()
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return Found(Login(identity_token=token))
    try:
        user, _, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return Found(None, f"the login for {registry} is damaged")
    return Found(Login(user, password.rstrip("\0"))) if user else Found()


def _lookup(entries: Mapping[str, Any], registry: str) -> Any:
    for key, value in entries.items():
        bare = re.sub(r"^https?://", "", key).split("/")[0]
        if registry in (key, bare):
            return value
    return None


def _ask(helper: str, registry: str, environment: Mapping[str, str]) -> Found:
    """Ask a helper; that it knows nothing is no problem."""
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", helper):
        return Found(None, f"{helper!r} is no credential helper")
    try:
        done = subprocess.run(
            [program, "get"], input=registry.encode(), capture_output=True, check=False,
            timeout=HELPER_LIMIT_S, env=dict(environment),
        )  # fmt: skip
    except FileNotFoundError:
        return Found(None, f"the credential helper {program} is not installed")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(None, f"the credential helper {program} failed: {type(error).__name__}")
    if done.returncode != 0:
        if b"not found" in done.stdout or b"not found" in done.stderr:
            return Found()
        return Found(None, f"the credential helper {program} failed (status {done.returncode})")
    try:
        said = json.loads(done.stdout)
        user, secret = str(said["Username"]), str(said["Secret"])
    except (ValueError, KeyError, TypeError):
        return Found(None, f"the credential helper {program} did not answer as one")
    if user == "<token>":
        return Found(Login(identity_token=secret))
    return Found(Login(user, secret)) if user else Found()
