#!/usr/bin/env python3
"""Stand between a client and a server on stdio, and write down what they say.

python protocol/record.py [--place NAME=PATH]... [--raw] OUT.jsonl -- COMMAND...

The client starts this in place of the server. Each message becomes one line of OUT.jsonl:
{"from": "client" or "server", "message": {...}}. What differs from run to run (pids, ports, times,
keys) becomes a stand-in, and each PATH becomes ${NAME}, so that the file names no machine; --raw
keeps everything. Bytes pass through unchanged, whatever they are. The exit status is the server's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.volatile import settled
from sandbox_rpc.protocol.frames import Decoder, FrameError

CHUNK = 1 << 16

Settle = Callable[[str, object], object]
"""Sender and message → what is written down."""


class Recorder:
    """Writes messages in the order in which they pass."""

    def __init__(self, out: IO[str], settle: Settle) -> None:
        self._out = out
        self._settle = settle
        self._lock = threading.Lock()

    def pump(self, sender: str, source: int, sink: int) -> None:
        """Pass bytes on until the source ends, then close the sink."""
        decoder: Decoder | None = Decoder()
        try:
            while data := os.read(source, CHUNK):
                # Before it is passed on: so no answer is written down before its request.
                decoder = decoder and self._take(sender, decoder, data)
                while data:
                    data = data[os.write(sink, data) :]
        except OSError:
            pass  # the other side has gone, which its own pump sees
        os.close(sink)

    def _take(self, sender: str, decoder: Decoder, data: bytes) -> Decoder | None:
        try:
            for body in decoder.feed(data):
                line = {"from": sender, "message": self._settle(sender, json.loads(body))}
                with self._lock:
                    self._out.write(json.dumps(line) + "\n")
                    self._out.flush()
        except (FrameError, ValueError) as error:
            print(f"record: the {sender} is not recorded any more: {error}", file=sys.stderr)
            return None
        return decoder


def record(out: Path, command: list[str], settle: Settle) -> int:
    """Run the server between this process's stdin and stdout; its exit status."""
    with out.open("w", encoding="utf-8") as file:
        recorder = Recorder(file, settle)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: process.send_signal(number))
        to_server = os.dup(process.stdin.fileno())
        process.stdin.close()
        # A daemon: a client that keeps its end open must not keep us when the server has ended.
        threading.Thread(target=recorder.pump, args=("client", 0, to_server), daemon=True).start()
        recorder.pump("server", process.stdout.fileno(), os.dup(1))
        return process.wait()


def place(text: str) -> tuple[str, str]:
    """NAME=PATH as (path, name)."""
    name, equals, path = text.partition("=")
    if not (name and equals and os.path.isabs(path)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=/ABSOLUTE/PATH")
    return path, name


def main(arguments: list[str] | None = None) -> int:
    """Record one session; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--place", type=place, action="append", default=[], metavar="NAME=PATH",
        help="write ${NAME} for this path",
    )  # fmt: skip
    parser.add_argument("--raw", action="store_true", help="write down everything as it is")
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(arguments)
    places: Mapping[str, str] = dict(options.place)

    def settle(sender: str, message: object) -> object:
        return message if options.raw else settled(sender, message, places)

    return record(options.out, options.command, settle)


if __name__ == "__main__":
    sys.exit(main())
