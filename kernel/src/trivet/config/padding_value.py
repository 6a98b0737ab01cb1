"""The values to pad with, from text."""

from __future__ import annotations

from typing import Any

import numpy as np

from trivet.datatypes import BF16, BOOL, BY_CONFIG_VALUE

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def datatype_name(data_type: int) -> str:
    """The protocol's name of a ``DataType`` of ``model_config.proto``."""
    return str(BY_CONFIG_VALUE[data_type])


def scalar_of(data_type: int, text: str) -> Any:
    """The value as a numpy scalar of the datatype (the bit pattern for BF16); ``None`` where it is none of its values.

    ``data_type`` is any but ``TYPE_STRING``.
    """
    datatype = BY_CONFIG_VALUE[data_type]
    if datatype is BOOL:
        value = _TRUTH.get(text.lower())
        return None if value is None else np.bool_(value)
    dtype = datatype.numpy
    try:
        if datatype is BF16:
            bits = int(np.float32(text).view(np.uint32))
            return None if bits & 0xFFFF else np.uint16(bits >> 16)
        if dtype.kind == "f":
            number = float(text)
            with np.errstate(over="ignore"):
                scalar = dtype.type(number)
            return scalar if np.isinf(scalar) == np.isinf(number) else None
        return dtype.type(int(text))
    except (ValueError, OverflowError):
        return None
