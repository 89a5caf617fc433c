"""One request in plain HTTP and its answer: each read whole by h11 and written anew.

The connection to a server carries requests for that host only; the guest's may carry requests for
any host, each of them judged by itself.
"""

from __future__ import annotations

import anyio
import h11

from sandbox_rpc.network.proxy.http import Http
from sandbox_rpc.network.proxy.line import Ended, Pace, relay
from sandbox_rpc.network.proxy.request import Headers, Refused, check_framing, passed_on

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""May be sent again to a server that has closed a connection in the meantime."""


class Stale(Exception):
    """The server had closed the connection before it heard anything."""


class Exchange:
    """A request under way between two ends."""

    def __init__(self, guest: Http, server: Http, pace: Pace) -> None:
        self._guest = guest
        self._server = server
        self._pace = pace
        self._wants_to_switch = False
        self._heard_before = server.line.moved
        self.status: int | None = None
        """Of the answer, once it is known."""
        self.has_switched = False
        """Whether both ends speak another protocol by now; then it is over as well."""

    async def run(self, request: h11.Request, asked: h11.Request, *, has_body: bool) -> None:
        """Send `request`, which the guest has `asked`, and what belongs to it; pass on the answer.

        Raises:
            Stale: nothing has been sent to the guest, and the same may be tried anew.
            Refused: the server does not speak HTTP; the guest has not been told anything.
            Ended: the guest was told part of it.
            h11.RemoteProtocolError: the guest does not speak HTTP.
        """
        self._wants_to_switch = any(name == b"upgrade" for name, _ in request.headers)
        try:
            await self._server.send(request)
            if not has_body:
                await self._server.send(h11.EndOfMessage())
        except Ended:
            raise Stale from None
        if not has_body:
            await self._answer(asked)
            return
        failures: list[Exception] = []

        async def body(scope: anyio.CancelScope) -> None:
            try:
                await self._body()
            except (Ended, h11.RemoteProtocolError) as error:
                failures.append(error)
                scope.cancel()

        answered = False
        async with anyio.create_task_group() as group:
            group.start_soon(body, group.cancel_scope)
            try:
                await self._answer(asked)
                answered = True
            except (Ended, Refused, Stale, h11.RemoteProtocolError) as error:
                failures.append(error)
            # A server may answer before it has read all; then nobody will read the rest.
            group.cancel_scope.cancel()
        if not answered and failures:
            raise failures[0]

    async def _body(self) -> None:
        while True:
            event = await self._guest.next()
            self._pace.at = anyio.current_time()
            if not isinstance(event, (h11.Data, h11.EndOfMessage)):
                raise Ended("the guest has gone")
            try:
                # Trailers stay here: few servers read them, and they are headers all the same.
                await self._server.send(
                    h11.Data(data=event.data) if isinstance(event, h11.Data) else h11.EndOfMessage()
                )
            except Ended:
                return  # it may have answered before it hung up
            if isinstance(event, h11.EndOfMessage):
                return

    async def _answer(self, asked: h11.Request) -> None:
        heard = False
        while True:
            try:
                event = await self._server.next()
            except Ended:
                if heard:
                    raise
                raise Stale from None
            except h11.RemoteProtocolError as error:
                if heard:
                    raise Ended(str(error)) from None
                if self._server.line.moved == self._heard_before:
                    raise Stale from None
                raise Refused(
                    502, "bad-answer", f"The server does not speak HTTP: {error}."
                ) from None
            self._pace.at = anyio.current_time()
            match event:
                case h11.InformationalResponse(status_code=101):
                    if not self._wants_to_switch:
                        raise Refused(502, "bad-answer", "The server switches protocols unasked.")
                    await self._switch(event)
                    return
                case h11.InformationalResponse():
                    if asked.http_version >= b"1.1":
                        await self._guest.send(
                            h11.InformationalResponse(
                                status_code=event.status_code,
                                headers=passed_on(event.headers.raw_items()),
                                reason=event.reason,
                            )
                        )
                case h11.Response():
                    heard = True
                    self.status = event.status_code
                    await self._guest.send(_answer_of(event))
                case h11.Data():
                    await self._guest.send(h11.Data(data=event.data))
                case h11.EndOfMessage():
                    await self._guest.send(h11.EndOfMessage())
                    return
                case _:
                    if heard:
                        raise Ended("the server has gone")
                    raise Stale

    async def _switch(self, event: h11.InformationalResponse) -> None:
        """Both ends speak another protocol from here on: WebSocket, as a rule."""
        self.status = 101
        self.has_switched = True
        upgrade = [(name, value) for name, value in event.headers.raw_items()
                   if name.lower() == b"upgrade"]  # fmt: skip
        headers: Headers = passed_on(event.headers.raw_items())
        await self._guest.send(
            h11.InformationalResponse(
                status_code=101,
                headers=[*headers, *upgrade, (b"Connection", b"Upgrade")],
                reason=event.reason,
            )
        )
        await self._guest.line.send(self._server.early)
        await self._server.line.send(self._guest.early)
        await relay(self._guest.line, self._server.line, self._pace)


def _answer_of(response: h11.Response) -> h11.Response:
    headers = passed_on(response.headers.raw_items())
    try:
        check_framing(headers)
    except Refused:
        raise Refused(502, "bad-answer", "The answer says two things about its length.") from None
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)
