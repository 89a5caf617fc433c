"""Progress as `$/progress`: begin, reports, end, the end before the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lsprotocol import types as lsp

from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.progress import Progress, Report, said, silent

Notify = Callable[[str, Any], None]


@contextmanager
def reporting(notify: Notify, token: int | str | None, title: str) -> Iterator[Report]:
    """A `Report` for the block; silent where the client gave no token.

    Nothing is sent for work that has nothing to say: it was done already. Values carry `phase`,
    and of a transfer its bytes, beside LSP's own fields.
    """
    if token is None:
        yield silent
        return
    begun = False

    def send(value: dict[str, Any]) -> None:
        notify(lsp.PROGRESS, {"token": token, "value": value})

    def report(progress: Progress) -> None:
        nonlocal begun
        value: dict[str, Any] = {
            **convert.to_wire(progress),
            "kind": "report" if begun else "begin",
            "message": said(progress),
            "cancellable": True,
        }
        if not begun:
            value["title"] = title
        begun = True
        send(value)

    try:
        yield report
    finally:
        if begun:
            send({"kind": "end"})
