#!/usr/bin/env python3
"""Write the protocol's files from sandbox_rpc/protocol.

python protocol/generate.py            writes them
python protocol/generate.py --check    prints what would change; exit status 1 where anything would
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from protocol.metamodel import Model, Unclear, source_model  # noqa: E402
from protocol.reference import reference  # noqa: E402
from protocol.schema import schema  # noqa: E402
from protocol.typescript import typescript  # noqa: E402

COMMAND = "python protocol/generate.py"


def files(model: Model) -> dict[str, str]:
    """Content by path. All but the first file come from what the first one holds."""
    written = pretty(model)
    read: Model = json.loads(written)
    return {
        "protocol/metaModel.json": written,
        "protocol/schema.json": pretty(schema(read)),
        "protocol/reference.md": reference(read),
        "editor-extension/src/protocol.ts": typescript(read),
    }


def pretty(value: Any) -> str:
    """JSON for people and for diffs."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def drift(wanted: dict[str, str], root: Path = ROOT) -> Iterator[str]:
    """Lines of a diff from what is in the files to what should be."""
    for name, text in wanted.items():
        path = root / name
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        yield from difflib.unified_diff(
            present.splitlines(), text.splitlines(), name, f"{name} (generated)", lineterm=""
        )
        if present != text and present.splitlines() == text.splitlines():
            yield f"{name}: other line ends"


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write, or with `--check` compare; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only print what would change")
    options = parser.parse_args(arguments)
    try:
        wanted = files(source_model())
    except Unclear as error:
        print(f"sandbox_rpc/protocol: {error}", file=sys.stderr)
        return 1
    if options.check:
        if lines := list(drift(wanted, root)):
            print("\n".join(lines))
            print(f"\nThe files are not those of the source. Repair: {COMMAND}", file=sys.stderr)
            return 1
        return 0
    for name, text in wanted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
