"""Tensor element types, under the protocol's names (``FP32``) and the configuration's (``TYPE_FP32``).

Source: Open Inference Protocol v2, "Tensor Data Types"; Triton ``model_config.proto``, enum ``DataType``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class DataType:
    """One element type. There is one object per type, so compare with ``is``.

    ``BF16`` has no numpy type: its elements are held as ``uint16`` bit patterns. ``BYTES`` elements are Python
    ``bytes`` objects in a numpy array of dtype object; on the wire each is a 4-byte little-endian length and the bytes.
    """

    name: str
    """The protocol's name, e.g. ``"FP32"``."""
    config_name: str
    """The model configuration's name, e.g. ``"TYPE_FP32"``."""
    config_value: int
    """The number of the enumerator in ``inference.DataType``."""
    itemsize: int
    """Bytes per element; 0 for ``BYTES``, whose elements vary."""
    numpy: np.dtype[Any]
    """The dtype of the host array that holds such elements."""

    def __repr__(self) -> str:
        return self.name


BOOL = DataType("BOOL", "TYPE_BOOL", 1, 1, np.dtype(np.bool_))
UINT8 = DataType("UINT8", "TYPE_UINT8", 2, 1, np.dtype(np.uint8))
UINT16 = DataType("UINT16", "TYPE_UINT16", 3, 2, np.dtype(np.uint16))
UINT32 = DataType("UINT32", "TYPE_UINT32", 4, 4, np.dtype(np.uint32))
UINT64 = DataType("UINT64", "TYPE_UINT64", 5, 8, np.dtype(np.uint64))
INT8 = DataType("INT8", "TYPE_INT8", 6, 1, np.dtype(np.int8))
INT16 = DataType("INT16", "TYPE_INT16", 7, 2, np.dtype(np.int16))
INT32 = DataType("INT32", "TYPE_INT32", 8, 4, np.dtype(np.int32))
INT64 = DataType("INT64", "TYPE_INT64", 9, 8, np.dtype(np.int64))
FP16 = DataType("FP16", "TYPE_FP16", 10, 2, np.dtype(np.float16))
FP32 = DataType("FP32", "TYPE_FP32", 11, 4, np.dtype(np.float32))
FP64 = DataType("FP64", "TYPE_FP64", 12, 8, np.dtype(np.float64))
BYTES = DataType("BYTES", "TYPE_STRING", 13, 0, np.dtype(np.object_))
BF16 = DataType("BF16", "TYPE_BF16", 14, 2, np.dtype(np.uint16))

ALL: tuple[DataType, ...] = (
    BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES, BF16,
)  # fmt: skip

BY_NAME: dict[str, DataType] = {datatype.name: datatype for datatype in ALL}
BY_CONFIG_NAME: dict[str, DataType] = {datatype.config_name: datatype for datatype in ALL}
BY_CONFIG_VALUE: dict[int, DataType] = {datatype.config_value: datatype for datatype in ALL}
# BF16 comes last in ALL and shares uint16; the plain integer is what a bare array of uint16 means.
_BY_NUMPY: dict[np.dtype[Any], DataType] = {datatype.numpy: datatype for datatype in reversed(ALL)}


def from_numpy(dtype: np.dtype[Any]) -> DataType:
    """The element type of a host array. Text (``str_``, ``bytes_``) and object arrays are ``BYTES``.

    Raises :class:`TypeError` for a dtype that no tensor can have (complex, datetime, structured).
    """
    found = _BY_NUMPY.get(dtype)
    if found is not None:
        return found
    if dtype.kind in "SU":
        return BYTES
    if dtype.name == "bfloat16":
        return BF16
    native = _BY_NUMPY.get(dtype.newbyteorder("="))
    if native is None:
        raise TypeError(f"numpy dtype {dtype} has no tensor datatype; use one of {', '.join(map(repr, ALL))}")
    return native
