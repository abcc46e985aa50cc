"""The words of an instruction: quotes, escapes and variables, as a shell would have them, and no shell.

    $name  ${name}  ${name:-word}  ${name:+word}  ${name:?word}        and each without the colon
    'as it is'  "with $variables"  \\x

Source: https://docs.docker.com/reference/dockerfile/#environment-replacement
"""

import re
from collections.abc import Mapping

from minirt.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-]")
_OPERATOR = re.compile(r":?[-+?]")


def split(text: str, escape: str) -> list[str]:
    """Return the words of ``text``, with their quotes and escapes still in them."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word, at = "", at + 1
            continue
        word += char
        at += 1
    return [*words, word] if word else words


def expand(text: str, variables: Mapping[str, str], escape: str) -> str:
    """Return one word without its quotes, its variables replaced; one that is not set is nothing.

    Raises:
        InvalidInput: a quote or a brace is not closed, or ``${name:?word}`` is not met.
    """
    found, rest = _Reader(text, variables, escape).until("")
    assert not rest
    return found


class _Reader:
    """Reads one word from the left."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text, self._variables, self._escape = text, variables, escape
        self._at = 0

    def until(self, end: str) -> tuple[str, str]:
        """Return what comes before the unquoted character ``end`` ("": all of it), and what is left."""
        made, quote = "", ""
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if quote == "'":
                made, quote = (made, "") if char == "'" else (made + char, quote)
            elif char == end and not quote:
                return made, self._text[self._at :]
            elif char == self._escape and self._at < len(self._text):
                made += self._escaped(in_quotes=bool(quote))
            elif char in ("'", '"') and (not quote or char == quote):
                quote = "" if quote else char
            elif char == "$":
                made += self._variable()
            else:
                made += char
        if quote or end:
            raise InvalidInput(f"read {self._text!r}", f"there is no closing {quote or end}", "close it")
        return made, ""

    def _escaped(self, *, in_quotes: bool) -> str:
        char = self._text[self._at]
        self._at += 1
        return char if not in_quotes or char in ('"', "$", self._escape) else self._escape + char

    def _variable(self) -> str:
        """Return what a variable stands for; the "$" has been read."""
        braced = self._text[self._at : self._at + 1] == "{"
        self._at += braced
        found = _NAME.match(self._text, self._at)
        if not found:
            if braced:
                raise InvalidInput(f"read {self._text!r}", "no name follows ${", "name a variable")
            return "$"
        self._at = found.end()
        value = self._variables.get(found[0])
        if not braced:
            return value or ""
        if self._text[self._at : self._at + 1] == "}":
            self._at += 1
            return value or ""
        return self._modified(found[0], value)

    def _modified(self, name: str, value: str | None) -> str:
        operator = _OPERATOR.match(self._text, self._at)
        if not operator:
            why = f"${{{name} is not followed by }}, :-, :+ or :?"
            raise InvalidInput(f"read {self._text!r}", why, "those are known")
        self._at = operator.end()
        word, _ = self.until("}")
        is_set = bool(value) if operator[0].startswith(":") else value is not None
        if operator[0].endswith("?") and not is_set:
            raise InvalidInput(f"read {self._text!r}", f"{name} is not set: {word}", f"give --build-arg {name}=…")
        if operator[0].endswith("+"):
            return word if is_set else ""
        return value or "" if is_set else word
