"""Have a process move an image, and hear how far it is; see `images/worker.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import staging
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import DownloadFailed, from_wire
from sandbox_rpc.protocol.progress import Progress, Report, silent

MAX_LINE = 1 << 20
GRACE_S = 3.0


async def run(layout: Layout, verb: str, report: Report = silent, **params: Any) -> dict[str, Any]:
    """One request to a process of its own; cancelling ends it and keeps what can be resumed.

    Raises:
        SandboxError: whatever it answers.
    """
    request = {"verb": verb, "base": str(layout.base), "params": params}
    process = await anyio.open_process(
        [sys.executable, "-P", "-m", "sandbox_rpc.images.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    answer: dict[str, Any] = {}
    complaint = bytearray()
    try:
        assert process.stdin is not None
        with suppress(anyio.BrokenResourceError):  # it has ended already, and has said why
            await process.stdin.send(json.dumps(request).encode() + b"\n")
        async with anyio.create_task_group() as group:
            group.start_soon(_overhear, process, complaint)
            answer = await _listen(process, report)
            await process.wait()
    finally:
        if process.returncode is None:
            with anyio.CancelScope(shield=True):
                _signal(process, signal.SIGTERM)
                with anyio.move_on_after(GRACE_S):
                    await process.wait()
                _signal(process, signal.SIGKILL)
                # What it was unpacking; what it had downloaded stays.
                await staging.sweep(layout)
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if "error" in answer:
        raise from_wire(answer["error"])
    if "result" not in answer:
        last = complaint.decode(errors="replace").strip().splitlines()[-1:]
        raise DownloadFailed(
            f"The process that moves images ended with status {process.returncode}"
            f"{f': {last[0]}' if last else ''}.",
            hint="What has been downloaded is kept; try again.",
        )
    result: dict[str, Any] = answer["result"]
    return result


async def _listen(process: anyio.abc.Process, report: Report) -> dict[str, Any]:
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    while True:
        try:
            line = json.loads(await lines.receive_until(b"\n", MAX_LINE))
        except (anyio.IncompleteRead, anyio.EndOfStream):
            return {}
        except (anyio.DelimiterNotFound, ValueError):
            # Not one of ours; nobody reads on, so it might write for ever.
            _signal(process, signal.SIGKILL)
            return {}
        if "progress" not in line:
            return dict(line)
        report(convert.from_wire(line["progress"], Progress))


def _signal(process: anyio.abc.Process, number: signal.Signals) -> None:
    """To it and to what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _overhear(process: anyio.abc.Process, complaint: bytearray) -> None:
    assert process.stderr is not None
    async for piece in process.stderr:
        complaint += piece
        del complaint[:-4096]
