"""The ``data`` of a tensor in JSON, in both directions.

In: a list of values, nested in any way, since the shape says what they mean. Out: a flat list, row-major. Source: Open
Inference Protocol v2, "Tensor Data"; Triton for kinds, ranges and messages.
"""

from __future__ import annotations

import json
from array import array
from itertools import chain
from typing import Any

import numpy as np
import orjson
from trivet.datatypes import (
    BF16,
    BOOL,
    BYTES,
    FP16,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    DataType,
)
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, element_count, encode_bytes, object_array

from trivet_protocol_kserve_v2.codec.json_reader import encode_text
from trivet_protocol_kserve_v2.codec.json_types import (
    NOT_ARRAY,
    NOT_BOOLEAN,
    NOT_NUMBER,
    NOT_SIGNED,
    NOT_STRING,
    NOT_UNSIGNED,
    unparsable,
)
from trivet_protocol_kserve_v2.codec.json_writer import quote
from trivet_protocol_kserve_v2.codec.requests import INVALID

_WRONG_COUNT = "Unable to parse 'data': Shape does not match true shape of 'data' field"

# What elements of a datatype are called when they are not, which Python types they may have, and the array
# type code that holds them all: integers as 64 bits, which are then cut to size as Triton does.
_KINDS: dict[DataType, tuple[str, frozenset[type], str]] = {
    BOOL: (NOT_BOOLEAN, frozenset({bool}), "B"),
    **{datatype: (NOT_SIGNED, frozenset({int}), "q") for datatype in (INT8, INT16, INT32, INT64)},
    **{datatype: (NOT_UNSIGNED, frozenset({int}), "Q") for datatype in (UINT8, UINT16, UINT32, UINT64)},
    FP32: (NOT_NUMBER, frozenset({int, float}), "f"),
    FP64: (NOT_NUMBER, frozenset({int, float}), "d"),
}


def decode_data(name: str, datatype: DataType, shape: tuple[int, ...], data: object) -> Tensor:
    """A tensor of the elements in ``data``.

    Raises :class:`~trivet.errors.InternalError` for elements of the wrong kind or count, as Triton does, and
    :class:`~trivet.errors.InvalidArgumentError` for a datatype that JSON does not carry.
    """
    count = element_count(shape)
    if count == 0:
        return Tensor.from_wire(name, datatype, shape, b"")
    if type(data) is not list:
        raise unparsable("data", NOT_ARRAY)
    values = _flat(data)
    if not shape and len(values) != 1:
        # For Triton a shape without dimensions has no elements, whatever there is in the data.
        return Tensor.from_wire(name, datatype, shape, b"")
    if datatype is BYTES:
        return _decode_strings(name, shape, values, count)
    kind = _KINDS.get(datatype)
    if kind is None:
        raise not_in_json(name, datatype)
    problem, types, typecode = kind
    if not types.issuperset(map(type, values if len(values) <= count else values[:count])):
        raise unparsable("data", problem)
    if len(values) != count:
        raise InternalError(_WRONG_COUNT)
    try:
        elements = np.frombuffer(array(typecode, values), dtype=typecode)
    except OverflowError:
        raise unparsable("data", problem) from None
    if elements.dtype != datatype.numpy:
        elements = elements.astype(datatype.numpy)
    return Tensor.from_numpy(name, elements.reshape(shape), datatype)


def _decode_strings(name: str, shape: tuple[int, ...], values: list[Any], count: int) -> Tensor:
    check_strings(values)
    items = object_array([encode_text(value) for value in values], (len(values),))
    if len(values) != count:
        # Validation counts the elements of an encoded tensor, and says what it makes of them.
        return Tensor.from_wire(name, BYTES, shape, encode_bytes(items))
    return Tensor.from_numpy(name, items.reshape(shape), BYTES)


def check_strings(data: list[Any]) -> None:
    """:class:`~trivet.errors.InternalError` unless ``data``, however it is nested, holds strings and nothing else."""
    if not {str}.issuperset(map(type, _flat(data))):
        raise InternalError(f"Unable to parse JSON bytes array: {NOT_STRING}")


def not_in_json(name: str, datatype: DataType) -> InvalidArgumentError:
    """The error for an input of a datatype that has no form in JSON, or that does not exist."""
    if datatype is INVALID:
        return InvalidArgumentError(f"invalid datatype for input {name}")
    return InvalidArgumentError(
        f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input {name}"
    )


def _flat(data: list[Any]) -> list[Any]:
    """All elements in order, however they are nested."""
    while True:
        types = set(map(type, data))
        if list not in types:
            return data
        if len(types) == 1:
            data = list(chain.from_iterable(data))
        else:
            data = list(chain.from_iterable(value if type(value) is list else (value,) for value in data))


def encode_data(tensor: Tensor) -> orjson.Fragment:
    """What :func:`encode_elements` gives, for a place in a larger document."""
    return orjson.Fragment(encode_elements(tensor))


def encode_elements(tensor: Tensor) -> bytes:
    """The elements as the text of a JSON array.

    Numbers have the digits of a double, so FP32 0.1 is 0.10000000149011612, as in Triton. ``NaN`` and ``Infinity`` are
    written as such, and ``BYTES`` as they are even where they are not UTF-8. Raises
    :class:`~trivet.errors.InvalidArgumentError` for a datatype that JSON does not carry.
    """
    datatype = tensor.datatype
    if datatype is FP16 or datatype is BF16:
        raise InvalidArgumentError(
            f"sending {datatype} data via JSON is not supported. Please use the binary data format for output"
        )
    if datatype is BYTES:
        return _encode_strings(tensor)
    values = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    if datatype is FP32:
        values = values.astype(np.float64)
    encoded = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in encoded:  # orjson's word for what is not finite
        encoded = json.dumps(values.tolist(), separators=(",", ":")).encode()
    return encoded


def _encode_strings(tensor: Tensor) -> bytes:
    items = tensor.numpy().reshape(-1).tolist()
    try:
        return orjson.dumps([item.decode() if type(item) is bytes else str(item) for item in items])
    except UnicodeDecodeError:
        return b"[" + b",".join(map(_quoted, items)) + b"]"


def _quoted(item: bytes | str) -> bytes:
    decoded = item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item
    return quote(decoded)
