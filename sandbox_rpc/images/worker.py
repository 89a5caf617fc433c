"""The process that moves images: one request, its progress, its result, and it ends.

    python -P -m sandbox_rpc.images.worker

A process of its own, since an HTTP client, a decompressor and a stranger's bytes have no business
in the supervisor or the service; since it can be ended at any moment, whatever it waits for; and so
that nothing else ever loads what is compiled. `images/child.py` starts it.

One line of JSON comes on stdin; what comes out are lines with `progress`, then one with `result` or
`error`. It ends when stdin does: whoever wanted the result has gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images.key import Key
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import DownloadFailed, SandboxError, ToolMissing
from sandbox_rpc.protocol.progress import Progress

ABANDONED = 3
_speaking = threading.Lock()


def main() -> int:
    """Do what stdin asks for."""
    os.umask(0o077)
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch, daemon=True).start()
    try:
        say({"result": anyio.run(_do, request)})
    except SandboxError as error:
        say({"error": error.to_wire()})
    except ImportError as error:
        missing = ToolMissing(
            f"The Python package {error.name} is not installed, which images from registries need.",
            hint="Install sandbox-rpc with all it depends on: pip install sandbox-rpc; in the "
            "editor the command Install Packages for the Service does that.",
            tool="python-packages",
        )
        say({"error": missing.to_wire()})
    except Exception as error:
        traceback.print_exc()
        fault = DownloadFailed(f"A fault in sandbox itself: {type(error).__name__}: {error}")
        say({"error": fault.to_wire()})
    # Threads may still wait for a server.
    sys.stdout.flush()
    os._exit(0)


def say(line: Mapping[str, Any]) -> None:
    """One line for the parent."""
    with _speaking:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def report(progress: Progress) -> None:
    """Progress for the parent."""
    say({"progress": convert.to_wire(progress)})


async def _do(request: Mapping[str, Any]) -> Any:
    # Imported here, so that a package that is missing is an answer.
    from sandbox_rpc.images import bring, check, pack, pull

    layout = Layout(Path(request["base"]))
    layout.make()
    given = request["params"]
    match request["verb"]:
        case "pull":
            image = await pull.pull(
                layout, given["ref"], report, chosen=given["chosen"], patient=given["patient"],
                key=_key(given),
            )  # fmt: skip
            return {"ref": image.ref, "digest": image.digest}
        case "import":
            image = await bring.bring(layout, given["path"], given["ref"], given["name"], report)
            return {"ref": image.ref, "digest": image.digest}
        case "push":
            return await pack.push(layout, given["ref"], given["to"], report)
        case "export":
            return await pack.export(layout, given["ref"], given["path"], report)
        case "check":
            return await check.check(layout, given["ref"], _key(given))
    raise LookupError(request["verb"])


def _key(given: Mapping[str, Any]) -> Key | None:
    return convert.from_wire(given["key"], Key) if given.get("key") else None


def _watch() -> None:
    sys.stdin.buffer.read()
    os._exit(ABANDONED)


if __name__ == "__main__":
    sys.exit(main())
