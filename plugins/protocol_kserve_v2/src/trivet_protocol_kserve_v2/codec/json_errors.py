"""Says why a text is not JSON, in the words and at the offset that Triton's parser (RapidJSON) gives.

Clients and their tests match on these messages. This is a scanner for text that another parser has refused already: it
builds no values, keeps its own stack, and is slow, so callers bound how much they give it.
"""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

_SPACE = re.compile(rb"[ \t\n\r]*")
_DIGITS = re.compile(rb"[0-9]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_WORDS = {b"t": b"true", b"f": b"false", b"n": b"null", b"N": b"NaN", b"I": b"Infinity"}

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonError(NamedTuple):
    """What is wrong, and at which byte."""

    reason: str
    offset: int


class _RefusedError(Exception):
    def __init__(self, reason: str, offset: int) -> None:
        self.error = JsonError(reason, offset)


def diagnose(text: bytes) -> JsonError | None:
    """The first error in ``text``, or ``None`` where RapidJSON would find none."""
    try:
        _Scanner(text).document()
    except _RefusedError as refused:
        return refused.error
    return None


class _Scanner:
    __slots__ = ("at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0

    def document(self) -> None:
        self.space()
        if self.at == len(self.text):
            raise _RefusedError("The document is empty.", self.at)
        self.value()
        self.space()
        if self.at != len(self.text):
            raise _RefusedError("The document root must not be followed by other values.", self.at)

    def value(self) -> None:
        """One value with all it holds; ``stack`` has the kind of each container that is open."""
        stack: list[Literal["object", "array"]] = []
        while True:
            char = self.peek()
            if char == b"{":
                self.at += 1
                self.space()
                if self.peek() != b"}":
                    self.name()
                    stack.append("object")
                    continue
                self.at += 1
            elif char == b"[":
                self.at += 1
                self.space()
                if self.peek() != b"]":
                    stack.append("array")
                    continue
                self.at += 1
            elif char == b'"':
                self.string()
            elif char in _WORDS:
                self.word(_WORDS[char])
            else:
                self.number()
            if not self.close(stack):
                return

    def close(self, stack: list[Literal["object", "array"]]) -> bool:
        """After a value: past commas and closing brackets, to the next value. False at the end of the outermost one."""
        while stack:
            self.space()
            char = self.peek()
            if char == b",":
                self.at += 1
                self.space()
                if stack[-1] == "object":
                    self.name()
                return True
            if char != (b"}" if stack[-1] == "object" else b"]"):
                raise _RefusedError(
                    "Missing a comma or '}' after an object member."
                    if stack[-1] == "object"
                    else "Missing a comma or ']' after an array element.",
                    self.at,
                )
            self.at += 1
            stack.pop()
        return False

    def name(self) -> None:
        if self.peek() != b'"':
            raise _RefusedError("Missing a name for object member.", self.at)
        self.string()
        self.space()
        if self.peek() != b":":
            raise _RefusedError("Missing a colon after a name of object member.", self.at)
        self.at += 1
        self.space()

    def string(self) -> None:
        self.at += 1
        while True:
            self.skip(_PLAIN)
            char = self.peek()
            if char == b'"':
                self.at += 1
                return
            if char == b"\\":
                self.escape()
            elif not char:
                raise _RefusedError("Missing a closing quotation mark in string.", self.at)
            else:
                raise _RefusedError("Invalid escape character in string.", self.at)

    def escape(self) -> None:
        start = self.at
        self.at += 2
        kind = self.text[start + 1 : start + 2]
        if kind != b"u":
            if not kind or kind not in b'"\\/bfnrt':
                raise _RefusedError("Invalid escape character in string.", start)
            return
        digits = _HEX4.match(self.text, self.at)
        if digits is None:
            raise _RefusedError("Incorrect hex digit after \\u escape in string.", start)
        self.at += 4
        code = int(digits[0], 16)
        if 0xD800 <= code <= 0xDBFF:
            low = _LOW_SURROGATE.match(self.text, self.at)
            if low is None:
                raise _RefusedError("The surrogate pair in string is invalid.", start)
            self.at = low.end()
        elif 0xDC00 <= code <= 0xDFFF:
            raise _RefusedError("The surrogate pair in string is invalid.", start)

    def word(self, word: bytes) -> None:
        for offset in range(len(word)):
            if self.text[self.at + offset : self.at + offset + 1] != word[offset : offset + 1]:
                raise _RefusedError("Invalid value.", self.at + offset)
        self.at += len(word)

    def number(self) -> None:
        start = self.at
        if self.peek() == b"-":
            self.at += 1
        char = self.peek()
        if char in (b"I", b"N"):
            self.word(_WORDS[char])
            return
        if not char.isdigit():
            raise _RefusedError("Invalid value.", self.at)
        if char == b"0":
            self.at += 1
        else:
            self.skip(_DIGITS)
        if self.peek() == b".":
            self.at += 1
            self.digits("Miss fraction part in number.")
        if self.peek() in (b"e", b"E"):
            self.at += 1
            if self.peek() in (b"+", b"-"):
                self.at += 1
            self.digits("Miss exponent in number.")
        if math.isinf(float(self.text[start : self.at])):
            raise _RefusedError("Number too big to be stored in double.", start)

    def digits(self, reason: str) -> None:
        if not self.peek().isdigit():
            raise _RefusedError(reason, self.at)
        self.skip(_DIGITS)

    def space(self) -> None:
        self.skip(_SPACE)

    def peek(self) -> bytes:
        return self.text[self.at : self.at + 1]

    def skip(self, pattern: re.Pattern[bytes]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
