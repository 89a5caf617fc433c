"""A server that says what its argument, a JSON file, tells it: for tests of the tools.

The file maps a method to the messages to send when it comes; `"id": "ID"` becomes the request's.
It ends with the client, or at `exit`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sandbox_rpc.protocol.frames import Decoder, encode


def main() -> int:
    """Serve one client."""
    script = json.loads(Path(sys.argv[1]).read_text())
    decoder = Decoder()
    while data := os.read(0, 1 << 16):
        for body in decoder.feed(data):
            heard = json.loads(body)
            for message in script.get(heard["method"], []):
                said = dict(message)
                if said.get("id") == "ID":
                    said["id"] = heard["id"]
                os.write(1, encode(said))
            if heard["method"] == "exit":
                return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
