"""Reads the JSON of a request as Triton's parser does, fast where it is plain JSON.

orjson reads what RFC 8259 allows. Triton's parser also takes ``NaN`` and ``Infinity`` as numbers, bytes that are not
UTF-8 inside strings, and a byte order mark; such a text is read a second time by the standard library. Strings that
held such bytes have them as surrogate escapes: encode them with :func:`encode_text`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson
from trivet.errors import InternalError
from trivet.tensor import Buffer

from trivet_protocol_kserve_v2.codec.json_errors import diagnose

# Finding Triton's words for an error takes about 1 s per 2 MB, on the event loop: beyond this, less exact words do.
_DIAGNOSED_BYTES = 64 * 1024

_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_BYTE_ORDER_MARK = "\ufeff"
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def read_json(data: Buffer) -> Any:
    """The value of a JSON text.

    Raises :class:`~trivet.errors.InternalError` with Triton's message: it counts text that cannot be parsed as an error
    of its own, and answers 500.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # A NUL ends the text for a parser of C strings; what follows is binary data that came without a header length.
        return _read_tolerantly(bytes(data).partition(b"\0")[0])


def encode_text(text: str) -> bytes:
    """UTF-8, with the bytes that :func:`read_json` could not decode as they came."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _read_tolerantly(data: bytes) -> Any:
    text = data.decode("utf-8", "surrogateescape").removeprefix(_BYTE_ORDER_MARK)
    try:
        value = json.loads(text, parse_float=_float, parse_int=_integer)
        if "\\u" in text:
            _check_surrogates(text)
    except RecursionError:
        raise _refused("Nested too deeply", 0) from None
    except ValueError as error:
        _explain(data, error)
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("Number too big to be stored in double.")
    return value


def _integer(digits: str) -> int | float:
    # Past 64 bits a number is a double. Counting digits first keeps int() from seeing thousands of them.
    if len(digits) <= 20:
        value = int(digits)
        if _INT64_MIN <= value <= _UINT64_MAX:
            return value
    return _float(digits)


def _check_surrogates(text: str) -> None:
    """Refuse half of a surrogate pair, which the standard library lets through."""
    pending = -1  # Where the low half of a pair must begin; -1 where none is due.
    for escape in _ESCAPE.finditer(text):
        code = int(escape[1], 16) if escape[1] else 0
        is_low = 0xDC00 <= code <= 0xDFFF
        if is_low != (escape.start() == pending) or (pending >= 0 and not is_low):
            raise ValueError("The surrogate pair in string is invalid.")
        pending = escape.end() if 0xD800 <= code <= 0xDBFF else -1
    if pending >= 0:
        raise ValueError("The surrogate pair in string is invalid.")


def _explain(data: bytes, error: ValueError) -> NoReturn:
    if len(data) <= _DIAGNOSED_BYTES:
        found = diagnose(data)
        if found is not None:
            raise _refused(*found) from None
    at = error.pos if isinstance(error, json.JSONDecodeError) else 0
    raise _refused("Invalid value.", at) from None


def _refused(reason: str, offset: int) -> InternalError:
    return InternalError(f"failed to parse the request JSON buffer: {reason} at {offset}")
