"""HTTP as a registry needs it: no secret to another origin, no plain http but to loopback.

Only imported by the process that pulls and pushes (`images/worker.py`).
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from attrs import frozen
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, NewConnectionError

from sandbox_rpc import __version__
from sandbox_rpc.images.reference import is_loopback
from sandbox_rpc.protocol.errors import DownloadFailed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
SECRETS = ("authorization", "cookie", "proxy-authorization")
PORTS = {"http": 80, "https": 443}


@frozen
class Patience:
    """How long a server may take."""

    connect_s: float = 10.0
    """For a connection, with its TLS handshake."""
    read_s: float = 15.0
    """Between two pieces of an answer; then it counts as stalled."""


class Transient(Exception):
    """A failure that another try may not meet: `str()` is what happened."""

    def __init__(self, what: str, *, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s
        """What the server asked for, in seconds."""


class Client:
    """Connections to whatever origins an exchange needs, kept open between requests."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._proxies = urllib.request.getproxies()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._tls: ssl.SSLContext | None = None

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        follow: bool = False,
    ) -> Iterator[BaseHTTPResponse]:
        """Send a request; the answer's body is still to be read, whatever its status.

        `follow` follows redirects, without secrets where they lead to another origin.

        Raises:
            Transient: no connection, or none in time.
            DownloadFailed: the address or a redirect is one that is not to be followed.
        """
        sent = {"User-Agent": f"sandbox-rpc/{__version__}", "Accept-Encoding": "identity"}
        sent |= headers or {}
        for _ in range(MAX_REDIRECTS + 1):
            check_url(url)
            response = self._send(method, url, sent, body)
            target = response.headers.get("Location")
            if not follow or response.status not in REDIRECTS or not target:
                try:
                    yield response
                finally:
                    # Not released: what is left of the body would be in the next answer's way.
                    response.close()
                return
            response.drain_conn()
            response.release_conn()
            then = urljoin(url, target)
            if origin(then) != origin(url):
                sent = {name: v for name, v in sent.items() if name.lower() not in SECRETS}
            if urlsplit(url).scheme == "https" and urlsplit(then).scheme != "https":
                raise DownloadFailed(
                    f"{shown(url)} redirects from https to {shown(then)}, which is refused."
                )
            url = then
        raise DownloadFailed(f"{shown(url)}: more than {MAX_REDIRECTS} redirects.")

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> BaseHTTPResponse:
        timeout = urllib3.Timeout(connect=self.patience.connect_s, read=self.patience.read_s)
        try:
            return self._pool(url).request(
                method, url, headers=headers, body=body, timeout=timeout,
                preload_content=False, decode_content=False, redirect=False, retries=False,
            )  # fmt: skip
        except LocationParseError as error:
            raise DownloadFailed(f"{shown(url)} is no address.") from error
        except HTTPError as error:
            raise Transient(f"{shown(url)}: {reason(error)}") from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        host = parts.hostname or ""
        proxy = ""
        if not is_loopback(host) and not urllib.request.proxy_bypass(parts.netloc):
            proxy = self._proxies.get(parts.scheme, self._proxies.get("all", ""))
        if proxy not in self._pools:
            if self._tls is None:
                # The system's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name.
                self._tls = ssl.create_default_context()
            self._pools[proxy] = (
                urllib3.ProxyManager(
                    proxy if "://" in proxy else f"http://{proxy}",
                    ssl_context=self._tls, proxy_headers=_proxy_login(proxy),
                )
                if proxy
                else urllib3.PoolManager(ssl_context=self._tls)
            )  # fmt: skip
        return self._pools[proxy]


def read_limited(response: BaseHTTPResponse, limit: int, what: str) -> bytes:
    """The body of an answer that may not be longer than `limit` bytes.

    Raises:
        Transient: the connection ended.
        DownloadFailed: it is longer.
    """
    found = bytearray()
    try:
        while piece := response.read1(1 << 16):
            found += piece
            if len(found) > limit:
                raise DownloadFailed(f"{what} is longer than {limit} bytes, which is refused.")
    except (HTTPError, OSError) as error:
        raise Transient(f"{what}: {reason(error)}") from error
    return bytes(found)


def check_url(url: str) -> None:
    """See that an address may be asked.

    Raises:
        DownloadFailed: it is neither https nor plain http of this host's loopback, or has a
            password in it.
    """
    parts = split(url)
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not (parts.scheme == "https" or plain) or not parts.hostname or parts.username is not None:
        raise DownloadFailed(
            f"{shown(url)} is not asked: only https is, and plain http on this host's loopback."
        )


def split(url: str) -> SplitResult:
    """An address in its parts.

    Raises:
        DownloadFailed: it is none.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise DownloadFailed(f"{url[:80]!r} is no address.") from None
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: whoever shares all three is the same server."""
    parts = split(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


def shown(url: str) -> str:
    """An address for a message: without login and query, which hold signatures."""
    parts = split(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"[:200]


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, NewConnectionError):
        return str(error).rpartition("]")[2].strip() or "no connection"
    if isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.IncompleteRead):
        return "the connection ended early"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _proxy_login(proxy: str) -> Mapping[str, str] | None:
    parts = urlsplit(proxy)
    if not parts.username:
        return None
    return urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}")
