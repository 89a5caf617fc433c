"""Takes out of a guest's output what a terminal would act on beyond the screen.

Printed bytes can set the user's clipboard and window title, or make the terminal type an answer,
which then runs as a command. What moves the cursor, colours and draws goes through.
"""

from __future__ import annotations

ESC = 0x1B
STRINGS = frozenset(b"]PX^_")
"""ESC and one of these begin OSC, DCS, SOS, PM, APC: titles, clipboards, queries, downloads."""
MAX_SEQUENCE = 4096
"""Bytes of a sequence that does not end; then it is dropped and text is text again."""
REPORTS = frozenset(b"cntx")
"""Final bytes of what a terminal answers: attributes, status, window, parameters."""
ENQUIRY = 0x05


class Filter:
    """Works on a stream, wherever it is cut."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The part of `data`, and of what was held back before, that may be shown."""
        out = bytearray()
        for byte in data:
            self._take(byte, out)
        return bytes(out)

    def _take(self, byte: int, out: bytearray) -> None:
        pending = self._pending
        if not pending:
            if byte == ESC:
                pending.append(byte)
            elif byte != ENQUIRY:
                out.append(byte)
            return
        if byte in (0x18, 0x1A):  # CAN and SUB break off any sequence
            pending.clear()
            return
        pending.append(byte)
        if len(pending) > MAX_SEQUENCE:
            pending.clear()
        elif pending[1] in STRINGS:
            self._take_string(byte)
        elif pending[1] == ord("["):
            self._take_control(byte, out)
        elif byte == ESC:
            # A new sequence begins inside one that had not ended.
            del pending[:-1]
        elif not 0x20 <= byte <= 0x2F:
            if byte != ord("Z"):  # DECID, an old request for attributes
                out += pending
            pending.clear()

    def _take_string(self, byte: int) -> None:
        if byte == 0x07 or (byte == ord("\\") and self._pending[-2] == ESC):
            self._pending.clear()

    def _take_control(self, byte: int, out: bytearray) -> None:
        pending = self._pending
        if len(pending) == 2:
            return
        if byte == ESC:
            del pending[:-1]
        elif 0x40 <= byte <= 0x7E:
            if not _asks(bytes(pending)):
                out += pending
            pending.clear()


def _asks(sequence: bytes) -> bool:
    final, private = sequence[-1], sequence[2:3]
    if final in REPORTS:
        return True
    if final == ord("p") and b"$" in sequence:  # DECRQM, the state of a mode
        return True
    if final == ord("q") and private == b">":  # XTVERSION
        return True
    return final == ord("u") and private in (b"?", b">", b"<", b"=")  # keyboard protocol
