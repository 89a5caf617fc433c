"""HTTP over a line: h11's events, read and written."""

from __future__ import annotations

import json

import h11

from sandbox_rpc.network.proxy.line import Ended, Line
from sandbox_rpc.network.proxy.request import MAX_HEAD, Refused

CHUNK = 64 << 10
Event = (
    h11.Request
    | h11.InformationalResponse
    | h11.Response
    | h11.Data
    | h11.EndOfMessage
    | h11.ConnectionClosed
)


class Http:
    """One end of an HTTP connection."""

    __slots__ = ("connection", "line")

    def __init__(self, line: Line, role: type[h11.CLIENT | h11.SERVER]) -> None:
        self.line = line
        self.connection = h11.Connection(role, max_incomplete_event_size=MAX_HEAD)

    async def next(self) -> Event | type[h11.PAUSED]:
        """The next event.

        Raises:
            Ended: the connection broke.
            h11.RemoteProtocolError: what came is not HTTP.
        """
        connection = self.connection
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await self.line.receive(CHUNK))
        return event  # type: ignore[return-value]

    async def send(self, event: Event) -> None:
        """Send an event.

        Raises:
            Ended: the connection broke.
            h11.LocalProtocolError: it does not fit here.
        """
        data = self.connection.send(event)
        if data:
            await self.line.send(data)

    @property
    def early(self) -> bytes:
        """What came behind the last message, not HTTP any more."""
        return self.connection.trailing_data[0]

    @property
    def is_idle(self) -> bool:
        """Whether a message and its answer are done and the connection can take the next."""
        connection = self.connection
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def refuse(
    http: Http, refusal: Refused, *, name_of_rule: str | None = None, last: bool = False
) -> bool:
    """Tell the guest why; whether it could be told and may ask again on this connection.

    `last`: it may not in any case.
    """
    connection = http.connection
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return False
    body = json.dumps(
        {"error": refusal.reason, "message": refusal.message, "rule": name_of_rule}
    ).encode()
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body) + 1).encode()),
        (b"X-Sandbox-Proxy", refusal.reason.encode()),
    ]
    # After a body that nobody has read, what follows could be anything.
    keeps = not last and connection.their_state not in (h11.SEND_BODY, h11.ERROR)
    if not keeps:
        headers.append((b"Connection", b"close"))
    try:
        await http.send(h11.Response(status_code=refusal.status, headers=headers))
        if not _is_head(connection):
            await http.send(h11.Data(data=body + b"\n"))
        await http.send(h11.EndOfMessage())
    except (Ended, h11.LocalProtocolError):
        return False
    return keeps and http.is_idle


def _is_head(connection: h11.Connection) -> bool:
    return connection._request_method == b"HEAD"
