"""A configuration as the JSON that Triton's configuration endpoint shows.

It is protobuf's JSON with the fields' own names and with defaults written out, except that most 64-bit integers are
numbers, not strings. The exceptions are three fields that Triton leaves as strings; clients have seen them so for
years. Source: HTTP responses of Triton 2.51 (``GET v2/models/NAME/config``).
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trivet.config.descriptors import fields_of, is_repeated, map_parts

_STRING_INTEGERS = frozenset(
    (
        "inference.ModelInstanceGroup.SecondaryDevice.device_id",
        "inference.ModelOptimizationPolicy.Cuda.GraphSpec.Shape.dim",
        "inference.ModelSequenceBatching.InitialState.dims",
    )
)


def to_dict(config: Message) -> dict[str, Any]:
    """The configuration (or a part of it) in plain values, in Triton's order of fields."""
    result: dict[str, Any] = {}
    chosen: dict[str, Any] = {}  # members of a oneof that hold a scalar come after the others
    for field in fields_of(config.DESCRIPTOR):
        value = getattr(config, field.name)
        entry = map_parts(field)
        if entry is not None:
            result[field.name] = {str(key): _single(entry[1], value[key]) for key in sorted(value)}
        elif is_repeated(field):
            result[field.name] = [_single(field, item) for item in value]
        elif field.message_type is None:
            if field.containing_oneof is None:
                result[field.name] = _single(field, value)
            elif config.HasField(field.name):
                chosen[field.name] = _single(field, value)
        elif config.HasField(field.name):
            result[field.name] = to_dict(value)
    return result | chosen


def to_json(config: Message) -> str:
    """:func:`to_dict` as text, without blanks."""
    return json.dumps(to_dict(config), separators=(",", ":"), ensure_ascii=False)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        name = field.enum_type.values_by_number.get(value)
        return name.name if name else value
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _number(value, single=field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)
    return str(value) if field.full_name in _STRING_INTEGERS else value


def _number(value: float, *, single: bool) -> float | int | str:
    """The shortest number that reads back as the same value; integral ones without a fraction."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) < 2**53:
        return value if value == 0 and math.copysign(1, value) < 0 else int(value)  # no integer is -0
    if not single:
        return value
    shortest = (float(f"{value:.{digits}g}") for digits in range(6, 10))  # 9 digits tell all 32-bit floats apart
    return next(number for number in shortest if struct.pack("f", number) == struct.pack("f", value))
