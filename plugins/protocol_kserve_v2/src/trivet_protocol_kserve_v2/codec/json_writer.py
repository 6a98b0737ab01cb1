"""Writes JSON whose text need not be UTF-8, since clients' ids and models' texts need not be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trivet_protocol_kserve_v2.codec.json_reader import encode_text


def write_json(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON of plain values and of :class:`orjson.Fragment`, in the order given, without blanks."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return _write(document)


def quote(value: str) -> bytes:
    """A JSON string. Bytes that a reader kept as surrogate escapes are written as they came, other halves of surrogate
    pairs as escapes of JSON.
    """
    try:
        return encode_text(json.dumps(value, ensure_ascii=False))
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def _write(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"{" + b",".join(quote(key) + b":" + _write(item) for key, item in value.items()) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_write, value)) + b"]"
    return quote(value) if isinstance(value, str) else orjson.dumps(value)
