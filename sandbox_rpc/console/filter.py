"""Takes out of a guest's output what a terminal would act on beyond the screen.

Printed bytes can set the user's clipboard and window title, or make the terminal type an answer,
which then runs as a command. What moves the cursor, colours and draws goes through.

Only whole sequences and whole characters go through, so that what is dropped never lets its two
sides grow together to something else. The editor's extension has the same rules in
`editor-extension/src/filter.ts`.
"""

from __future__ import annotations

import re

ESC = 0x1B
ABORTS = frozenset({0x18, 0x1A})
"""CAN and SUB break off any sequence."""
DROPPED = frozenset({0x05, 0x7F})
"""ENQ is answered by typing; DEL does nothing, also inside a sequence."""
STRINGS = frozenset(b"]PX^_")
"""ESC and one of these begin OSC, DCS, SOS, PM, APC: titles, clipboards, queries, downloads."""
CSI = ord("[")
REFUSED = frozenset(b"Z%")
"""ESC Z asks for attributes; ESC % leaves UTF-8, after which parts of characters are controls."""
CONTROL = re.compile(rb"\x1b\[([<-?]?)[0-9:;]*([ -/]*)([@-~])")
"""Private mark, parameters, intermediates, final byte."""
REPORTS = frozenset((b"c", b"n", b"t", b"x"))
"""Final bytes of what a terminal answers, whatever stands before."""
QUESTIONS = frozenset((b"$p", b"$u", b"$w", b"&u", b"*y", b"'|", b"#|", b"#R", b"i"))
"""The same with intermediates: modes, presentation, checksums, locators, colours; and printing."""
PRIVATE = frozenset((b">q", b"?u", b">u", b"<u", b"=u", b"?S", b"?m"))
"""With a private mark: version, keyboard protocol, graphics, key modifiers."""
MAX_SEQUENCE = 4096
"""Bytes of a sequence that does not end; then it is dropped and text is text again."""


class Filter:
    """Works on a stream, wherever it is cut."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._character = _Character()

    def feed(self, data: bytes) -> bytes:
        """The part of `data`, and of what was held back before, that may be shown."""
        out = bytearray()
        for byte in data:
            self._take(byte, out)
        return bytes(out)

    def _take(self, byte: int, out: bytearray) -> None:
        pending = self._pending
        kind = pending[1] if len(pending) > 1 else None
        if kind in STRINGS:
            self._take_string(byte)
            return
        if byte >= 0x80:
            # No sequence has such a byte: one that was begun is none.
            pending.clear()
            self._character.take(byte, out)
            return
        self._character.end(out)
        if byte == ESC:
            pending[:] = (ESC,)
        elif pending and byte in ABORTS:
            pending.clear()
        elif byte < 0x20 or byte == 0x7F:
            # A terminal obeys it at once, and the sequence around it goes on.
            if byte not in DROPPED:
                out.append(byte)
        elif pending:
            self._take_sequence(kind, byte, out)
        else:
            out.append(byte)

    def _take_string(self, byte: int) -> None:
        pending = self._pending
        ends = byte == 0x07 or (byte == ord("\\") and pending[-1] == ESC)
        pending.append(byte)
        if ends or byte in ABORTS or len(pending) > MAX_SEQUENCE:
            pending.clear()

    def _take_sequence(self, kind: int | None, byte: int, out: bytearray) -> None:
        pending = self._pending
        pending.append(byte)
        if len(pending) > MAX_SEQUENCE:
            pending.clear()
        elif kind is None and (byte == CSI or byte in STRINGS):
            return
        elif byte >= (0x40 if kind == CSI else 0x30):
            if _shows(pending) if kind == CSI else pending[1] not in REFUSED:
                out += pending
            pending.clear()


def _shows(sequence: bytearray) -> bool:
    """Whether a control sequence is one, and only draws."""
    found = CONTROL.fullmatch(sequence)
    if found is None:
        return False
    mark, middle, final = map(bytes, found.groups())
    return not (final in REPORTS or middle + final in QUESTIONS or mark + middle + final in PRIVATE)


class _Character:
    """Characters beyond ASCII, in UTF-8.

    The controls among them (C1) are those that ESC and a letter are, so they are dropped; and so is
    a byte that would be one to a terminal without UTF-8, unless it is a part of a character.
    """

    def __init__(self) -> None:
        self._missing = 0
        self._low, self._high = 0x80, 0xBF
        self._held = False
        """C2 is held: with the next byte it is a control, or none."""

    def take(self, byte: int, out: bytearray) -> None:
        """Take a byte of 0x80 or more."""
        if self._missing and self._low <= byte <= self._high:
            if not self._held:
                out.append(byte)
            elif byte >= 0xA0:
                out += bytes((0xC2, byte))
            self._held = False
            self._missing -= 1
            self._low, self._high = 0x80, 0xBF
            return
        self.end(out)
        if 0xC2 <= byte <= 0xF4:
            self._missing = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        # Without these ranges a control could be written longer than it is.
        self._low = {0xE0: 0xA0, 0xF0: 0x90}.get(byte, 0x80)
        self._high = {0xED: 0x9F, 0xF4: 0x8F}.get(byte, 0xBF)
        self._held = byte == 0xC2
        if not self._held and byte >= 0xA0:
            out.append(byte)

    def end(self, out: bytearray) -> None:
        """Something else comes: what is incomplete stays so."""
        if self._held:
            out.append(0xC2)
        self._held = False
        self._missing = 0
