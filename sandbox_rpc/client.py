"""A small client for scripts: the service as a child process, typed by the protocol.

    with Client() as client:
        sandbox = client.start("/path/to/project", progress=print)
        done = client.exec(sandbox.name, ["make", "test"])
        print(done.result.exit_code, done.stdout.decode())
        client.stop(sandbox.name)

It is synchronous and may be used from several threads; answers are read by a thread of its own.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, TypeVar

import attrs
from attrs import frozen

from sandbox_rpc.protocol import convert, errors, frames
from sandbox_rpc.protocol import streams as s
from sandbox_rpc.protocol import types as t
from sandbox_rpc.protocol.methods import NOTIFICATIONS, REQUESTS, VERSION
from sandbox_rpc.protocol.progress import Progress

T = TypeVar("T")

log = logging.getLogger(__name__)

RESULTS: dict[str, Any] = {request.method: request.result for request in REQUESTS}
NEWS = {note.method: note.params for note in NOTIFICATIONS if not note.to_server}


LEAVE_LIMIT_S = 60
"""For the service to end once it has been asked to; an image build is undone meanwhile."""


class ServiceGone(Exception):
    """The service ended before it answered."""


@frozen
class Done:
    """A command that has ended, with all it wrote."""

    result: s.ExecResult
    stdout: bytes
    stderr: bytes


class Client:
    """One service process; use it as a context manager."""

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-P", "-m", "sandbox_rpc", "--stdio"),
        *,
        env: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self._ids = itertools.count(1)
        self._tokens = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._progress: dict[object, Callable[[Progress], None]] = {}
        self._listeners: list[Callable[[str, Any], None]] = []
        self._sending = threading.Lock()
        self._gone = False
        """Whether no more answers can come."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        capabilities = {"experimental": {"sandbox": {"protocolVersion": VERSION}}}
        try:
            self.server: dict[str, Any] = self.request_raw(
                "initialize", {"processId": os.getpid(), "capabilities": capabilities}
            )
            """What the service said of itself."""
            self.notify("initialized", {})
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The service's process."""
        return self._process.pid

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> int:
        """End the service, not the sandboxes; returns its exit status."""
        if self._process.poll() is None:
            with suppress(ServiceGone, errors.SandboxError):
                self.request_raw("shutdown", None)
                self.notify("exit", None)
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            status = self._process.wait(LEAVE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def start(
        self,
        workspace: str,
        *,
        progress: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> t.Sandbox:
        """Start the sandbox of a folder and return it when it is ready.

        Raises:
            SandboxError: as `sandbox/start` lists them.
        """
        params = t.StartParams(os.path.abspath(workspace), **settings)
        return self._long("sandbox/start", params, t.Sandbox, progress)

    def stop(
        self,
        name: str,
        *,
        force: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> t.Sandbox:
        """Stop a sandbox."""
        return self._long("sandbox/stop", t.StopParams(name, force=force), t.Sandbox, progress)

    def status(self, name: str) -> t.Sandbox:
        """How a sandbox is."""
        return self.request("sandbox/status", t.Target(name), t.Sandbox)

    def list(self, *, stopped: bool = False) -> list[t.Sandbox]:
        """The sandboxes of this user."""
        return self.request("sandbox/list", t.ListParams(stopped), list[t.Sandbox])

    def forward(self, name: str, guest_port: int, host_port: int = 0) -> t.Forward:
        """Let a port of this host lead to one of the guest's; 0: the guest's number, or any.

        Raises:
            SandboxError: as `port/forward` lists them.
        """
        params = t.PortForwardParams(guest_port, name, host_port=host_port)
        return self.request("port/forward", params, t.Forward)

    def close_port(self, name: str, host_port: int) -> t.Forward:
        """End a forward and return what it was."""
        return self.request("port/close", t.PortCloseParams(host_port, name), t.Forward)

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        output: Callable[[s.Stream, bytes], None] | None = None,
        **more: Any,
    ) -> Done:
        """Run a command in the guest; `output` sees what it writes as it comes.

        Raises:
            SandboxError: it could not be run; an exit status other than 0 is no error.
        """
        token = f"exec-{next(self._tokens)}"
        written: dict[s.Stream, bytearray] = {one: bytearray() for one in s.Stream}

        def hear(method: str, value: Any) -> None:
            if isinstance(value, s.ExecOutput) and value.token == token:
                data = base64.b64decode(value.data)
                written[value.stream] += data
                if output is not None:
                    output(value.stream, data)

        params = s.ExecParams(name, token, list(argv), stdin=stdin is not None, **more)
        self.listen(hear)
        try:
            future = self.send("sandbox/exec", convert.to_wire(params))[1]
            if stdin is not None:
                text = base64.b64encode(stdin).decode()
                self.notify("sandbox/execInput", {"token": token, "data": text, "eof": True})
            result = convert.from_wire(future.result(), s.ExecResult)
        finally:
            self._listeners.remove(hear)
        return Done(result, bytes(written[s.Stream.STDOUT]), bytes(written[s.Stream.STDERR]))

    def request(self, method: str, params: Any, kind: type[T]) -> T:
        """Send a request and return its result as `kind`."""
        wire = convert.to_wire(params) if attrs.has(type(params)) else params
        return convert.from_wire(self.request_raw(method, wire), kind)

    def request_raw(self, method: str, params: Any) -> Any:
        """Send a request and return its result as JSON.

        Raises:
            SandboxError: the service answered with an error.
            ServiceGone: it ended.
        """
        return self.send(method, params)[1].result()

    def send(self, method: str, params: Any) -> tuple[int, Future[Any]]:
        """Send a request; its id, for `cancel`, and its result to come."""
        id_, future = next(self._ids), Future[Any]()
        self._waiting[id_] = future
        if self._gone and self._waiting.pop(id_, None) is not None:
            raise ServiceGone("the service has ended")
        self._write({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        return id_, future

    def cancel(self, id_: int) -> None:
        """Ask for a request to be undone; its result is then an error."""
        self.notify("$/cancelRequest", {"id": id_})

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def listen(self, listener: Callable[[str, Any], None]) -> None:
        """Call `listener(method, value)` for every notification, in the reader's thread."""
        self._listeners.append(listener)

    def _long(
        self,
        method: str,
        params: Any,
        kind: type[T],
        progress: Callable[[Progress], None] | None,
    ) -> T:
        if progress is None:
            return self.request(method, params, kind)
        token = f"work-{next(self._tokens)}"
        self._progress[token] = progress
        try:
            return self.request(method, attrs.evolve(params, work_done_token=token), kind)
        finally:
            del self._progress[token]

    def _write(self, message: dict[str, Any]) -> None:
        if message.get("params", 0) is None:
            del message["params"]
        pipe = self._process.stdin
        assert pipe is not None
        try:
            with self._sending:
                pipe.write(frames.encode(message))
                pipe.flush()
        except (BrokenPipeError, ValueError):
            raise ServiceGone("the service has ended") from None

    def _read(self) -> None:
        pipe: IO[bytes] | None = self._process.stdout
        assert pipe is not None
        decoder = frames.Decoder()
        try:
            while data := os.read(pipe.fileno(), 1 << 16):
                for body in decoder.feed(data):
                    self._take(json.loads(body))
        except (frames.FrameError, ValueError, AttributeError):
            log.exception("the service sent what nobody understands")
        self._gone = True
        while self._waiting:
            _, future = self._waiting.popitem()
            future.set_exception(ServiceGone("the service ended before it answered"))

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self._hear(message["method"], message.get("params"))
        elif (future := self._waiting.pop(message.get("id", 0), None)) is not None:
            if (error := message.get("error")) is not None:
                future.set_exception(errors.from_wire(error))
            else:
                future.set_result(message.get("result"))

    def _hear(self, method: str, params: Any) -> None:
        if method == "$/progress":
            value = params["value"]
            report = self._progress.get(params["token"])
            if report is not None and value["kind"] != "end":
                phase, message = value.get("phase", ""), value.get("message", "")
                try:
                    report(Progress(phase, message, value.get("percentage")))
                except Exception:
                    log.exception("a listener failed")
            return
        kind = NEWS.get(method)
        try:
            value = convert.from_wire(params, kind) if kind is not None else params
        except convert.Misfit:
            log.warning("a newer service sent a %s that this client does not know", method)
            return
        for listener in list(self._listeners):
            try:
                listener(method, value)
            except Exception:
                # What it raises must not end the thread that everybody's answers come through.
                log.exception("a listener failed")
