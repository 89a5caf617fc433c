"""One connection of the guest, from its first request to its end."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import h11

from sandbox_rpc.network.proxy import request as requests
from sandbox_rpc.network.proxy import tunnel
from sandbox_rpc.network.proxy.dial import Dialler, Outside
from sandbox_rpc.network.proxy.exchange import SAFE, Exchange, Stale
from sandbox_rpc.network.proxy.http import Http, refuse
from sandbox_rpc.network.proxy.journal import Entry, Journal
from sandbox_rpc.network.proxy.line import Ended, Line, Pace, relay
from sandbox_rpc.network.proxy.request import Refused, Target
from sandbox_rpc.network.proxy.rules import Decision

HEAD_S = 30.0
"""For the first request of a connection to arrive; a later one may be waited for much longer."""
ATTEMPTS = 3
"""For a request that may be made twice, where a server hangs up without a word."""
KEPT_S = 120.0
"""A connection is kept for its next request."""


class Visit:
    """A connection of the guest. `pace`, `scope` and `target` are for whoever ends it."""

    def __init__(
        self,
        line: Line,
        judge: Callable[[str, int], Decision],
        dialler: Dialler,
        journal: Journal,
    ) -> None:
        self._line = line
        self._guest = Http(line, h11.SERVER)
        self._judge = judge
        self._dialler = dialler
        self._journal = journal
        self._outside: Outside | None = None
        self._server: Http | None = None
        self._sent = 0
        self.pace = Pace()
        self.scope = anyio.CancelScope()
        self.target: Target | None = None
        """Where the connection to the outside leads."""
        self.is_tunnel = False
        self.cut: str | None = None
        """Why it was ended from the outside."""

    async def run(self) -> None:
        """Serve it; ends without an error whatever the two ends do."""
        try:
            with self.scope:
                await self._serve()
        except (Ended, h11.ProtocolError):
            pass
        finally:
            self._hang_up()
            self._line.close()

    async def _serve(self, inner: tuple[str, int] | None = None) -> None:
        """Requests until there are no more; `inner`: in a tunnel that leads there."""
        first = True
        while True:
            try:
                with anyio.fail_after(HEAD_S if first else KEPT_S):
                    event = await self._guest.next()
            except TimeoutError:
                if first:
                    await refuse(self._guest, Refused(408, "silent", "No request has come."))
                return
            except h11.RemoteProtocolError as error:
                status = 431 if error.error_status_hint == 431 else 400
                await refuse(self._guest, Refused(status, "bad-request", f"{error}."))
                return
            if not isinstance(event, h11.Request):
                return
            first = False
            self.pace.at = anyio.current_time()
            if not await self._one(event, inner):
                return
            if not self._guest.is_idle:
                return
            self._guest.connection.start_next_cycle()

    async def _one(self, asked: h11.Request, inner: tuple[str, int] | None) -> bool:
        """Serve one request; whether there may be another one after it."""
        note = _Note(asked, self._guest, anyio.current_time())
        # A request without a body is at its end already: no second task has to wait for it.
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in asked.headers
        )
        try:
            if not has_body:
                await self._guest.next()
            if inner is not None:
                note.target = Target(*inner, b"/")
            requests.check_framing(asked.headers.raw_items())
            target = (
                requests.target_of(asked) if inner is None else requests.inner_target(asked, *inner)
            )
            note.target = target
            decision = self._judge(target.host, target.port)
            note.decision = decision
            if not decision.allowed:
                raise _refusal(target, decision)
            if target.is_tunnel:
                if has_body:
                    raise Refused(400, "ambiguous", "CONNECT has no body.")
                await self._tunnel(target, note)
                return False
            return await self._exchange(asked, target, note, has_body=has_body)
        except Refused as refusal:
            note.refused(refusal)
            rule = note.decision.rule if note.decision else None
            with anyio.move_on_after(HEAD_S):
                # In a tunnel it is not by mistake that somebody else is asked for.
                return await refuse(self._guest, refusal, name_of_rule=rule, last=inner is not None)
            return False
        except (Ended, h11.ProtocolError) as error:
            note.reason = note.reason or ("broken" if isinstance(error, Ended) else "bad-request")
            raise
        finally:
            if self.cut is not None:
                note.reason = self.cut
            if self._outside is not None:
                note.address = self._outside.address
                note.down = self._outside.line.moved - note.down_before
            self._journal.write(note.entry())

    async def _tunnel(self, target: Target, note: _Note) -> None:
        self._hang_up()
        self.target = target
        outside = await self._dialler.open(
            target.host, target.port, tunnel=True, written_out=note.is_written_out
        )
        self._outside = outside
        self.is_tunnel = True
        early = self._guest.early
        await self._line.send(tunnel.ESTABLISHED)
        note.status = 200
        try:
            opening = await tunnel.listen(self._line, early, target.host)
        except Refused as refusal:
            # It has its answer already, so it is cut.
            note.refused(refusal)
            note.status = 200
            return
        note.sni = opening.sni
        if opening.is_tls:
            await outside.line.send(opening.data)
            await relay(self._line, outside.line, self.pace)
            return
        # What is not TLS may be HTTP, on port 80 above all: then each request is looked at.
        inside = Visit(self._line, self._judge, self._dialler, self._journal)
        inside._guest.connection.receive_data(opening.data)
        inside._take_over(outside, target, self)
        try:
            await inside._serve((target.host, target.port))
        finally:
            inside.cut = inside.cut or self.cut
            inside._hang_up()

    def _take_over(self, outside: Outside, target: Target, parent: Visit) -> None:
        self._outside, self.target = outside, target
        self._server = Http(outside.line, h11.CLIENT)
        self.pace, self.scope = parent.pace, parent.scope

    async def _exchange(
        self, asked: h11.Request, target: Target, note: _Note, *, has_body: bool
    ) -> bool:
        attempt = 0
        while True:
            attempt += 1
            await self._reach(target, note)
            outside, server = self._outside, self._server
            assert outside is not None
            assert server is not None
            note.down_before = outside.line.moved
            onward = requests.onward(asked, target, absolute=outside.is_shared_proxy)
            if outside.is_shared_proxy:
                onward = h11.Request(
                    method=onward.method, target=onward.target,
                    headers=[*onward.headers.raw_items(), *self._dialler.authorization],
                )  # fmt: skip
            exchange = Exchange(self._guest, server, self.pace)
            try:
                await exchange.run(onward, asked, has_body=has_body)
            except Stale:
                self._hang_up()
                if not has_body and asked.method in SAFE and attempt < ATTEMPTS:
                    # It closed a kept connection in the moment in which we asked, as a rule.
                    continue
                raise Refused(502, "unreachable", f"{target.host} has hung up.") from None
            except BaseException:
                note.status = exchange.status
                raise
            note.status = exchange.status
            break
        if exchange.has_switched:
            return False
        if server.is_idle:
            server.connection.start_next_cycle()
        else:
            note.down = outside.line.moved - note.down_before
            note.address = outside.address
            self._hang_up()
        return True

    async def _reach(self, target: Target, note: _Note) -> None:
        """Have a connection to the target's host."""
        same = self.target is not None and self.target[:2] == target[:2]
        if self._outside is not None and same and not self._outside.line.has_news():
            return
        self._hang_up()
        self.target = target
        self._outside = await self._dialler.open(
            target.host, target.port, tunnel=False, written_out=note.is_written_out
        )
        self._server = Http(self._outside.line, h11.CLIENT)

    def _hang_up(self) -> None:
        if self._outside is not None:
            self._outside.line.close()
        self._outside = self._server = self.target = None


class _Note:
    """What the audit will say of a request."""

    def __init__(self, asked: h11.Request, guest: Http, now: float) -> None:
        self._asked = asked
        self._line = guest.line
        self._began = now
        # The head is in: what follows is counted from here, also what came with it.
        self._up_before = guest.line.moved - len(guest.early)
        self.target: Target | None = None
        self.decision: Decision | None = None
        self.reason = ""
        self.status: int | None = None
        self.address: str | None = None
        self.sni: str | None = None
        self.is_refused = False
        self.down_before = 0
        self.down = 0

    @property
    def is_written_out(self) -> bool:
        """Whether a rule names the host by itself, rather than as one of many."""
        rule = self.decision.rule if self.decision else None
        return rule is not None and not rule.startswith(("^", "@", "*", "."))

    def refused(self, refusal: Refused) -> None:
        """It goes nowhere."""
        self.reason, self.status = refusal.reason, refusal.status
        self.is_refused = refusal.status in (400, 403, 421)

    def entry(self) -> Entry:
        """All of it."""
        host = self.target.host if self.target else self._asked.target[:100].decode("latin-1")
        return Entry(
            method=self._asked.method.decode("ascii", "replace")[:20],
            host=host,
            port=self.target.port if self.target else 0,
            allowed=not self.is_refused,
            rule=self.decision.rule if self.decision else None,
            reason=self.reason,
            address=self.address,
            sni=self.sni,
            status=self.status,
            up=self._line.moved - self._up_before,
            down=self.down,
            seconds=anyio.current_time() - self._began,
        )


def _refusal(target: Target, decision: Decision) -> Refused:
    match decision.reason:
        case "blocked":
            message = f"{target.host} is blocked by the allowlist's line {decision.rule}."
        case "port":
            message = f"{target.host} is allowed, but not at port {target.port}."
        case _:
            message = (
                f"{target.host} is not on this sandbox's allowlist. On the host: "
                f"sandbox proxy allow {target.host}"
            )
    return Refused(403, decision.reason, message)
