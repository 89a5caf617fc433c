"""git's configuration, read without git: whoever runs git in a folder obeys what is in it. Pure.

Character by character, as git's own config.c does it: a reader that took a comment, a quote or a
continued line for something else would overlook what git sees.
"""

from __future__ import annotations

from sandbox_rpc.workspace.executed import runs_something

_ESCAPES = {"t": "\t", "b": "\b", "n": "\n", "\\": "\\", '"': '"'}


class _Odd(ValueError):
    """git would refuse it."""


def running(text: str) -> dict[str, str] | None:
    """The settings by which git runs something: key → values; None where the text is not git's."""
    reader = _Reader(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    found: dict[str, str] = {}
    try:
        for key, value in reader.entries():
            if runs_something(key):
                found[key] = f"{found[key]}, {value}" if key in found else value
    except _Odd:
        return None
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def entries(self) -> list[tuple[str, str]]:
        """Keys with their section, and values.

        Raises:
            _Odd: it is no configuration.
        """
        found: list[tuple[str, str]] = []
        section = ""
        while self._at < len(self._text):
            character = self._next()
            if character.isspace():
                continue
            if character in "#;":
                self._skip_line()
            elif character == "[":
                section = self._section()
            elif character.isascii() and character.isalpha() and section:
                key = character.lower() + self._word()
                found.append((f"{section}.{key}", self._value_of_key()))
            else:
                raise _Odd
        return found

    def _next(self) -> str:
        """The next character; at the end a line ends too."""
        if self._at >= len(self._text):
            self._at += 1
            return "\n"
        self._at += 1
        return self._text[self._at - 1]

    def _skip_line(self) -> None:
        while self._next() != "\n":
            pass

    def _word(self) -> str:
        start = self._at
        while self._at < len(self._text) and (
            self._text[self._at].isascii()
            and (self._text[self._at].isalnum() or self._text[self._at] == "-")
        ):
            self._at += 1
        return self._text[start : self._at].lower()

    def _section(self) -> str:
        name = ""
        while True:
            character = self._next()
            if character == "]":
                return name
            if character.isspace() and character != "\n":
                return f"{name}.{self._subsection()}"
            if not character.isascii() or not (character.isalnum() or character in "-."):
                raise _Odd
            name += character.lower()

    def _subsection(self) -> str:
        character = self._next()
        while character.isspace() and character != "\n":
            character = self._next()
        if character != '"':
            raise _Odd
        name = ""
        while (character := self._next()) != '"':
            if character == "\\":
                character = self._next()
            if character == "\n":
                raise _Odd
            name += character
        if self._next() != "]":
            raise _Odd
        return name

    def _value_of_key(self) -> str:
        character = self._next()
        while character in " \t":
            character = self._next()
        if character == "\n":
            return "true"
        if character != "=":
            raise _Odd
        value, quoted, comment = "", False, False
        while True:
            character = self._next()
            if character == "\n":
                if quoted:
                    raise _Odd
                return value.strip()
            if comment:
                continue
            if not quoted and character in "#;":
                comment = True
            elif character == "\\":
                character = self._next()
                if character == "\n":
                    continue
                if character not in _ESCAPES:
                    raise _Odd
                value += _ESCAPES[character]
            elif character == '"':
                quoted = not quoted
            else:
                value += character
