"""The types of a model's arguments and results.

``Array`` is :data:`typing.Annotated`, and each element type is an annotated numpy array. So ``Array[Float32, "n", 3]``
is an array of ``float32`` to a type checker, and tells the server datatype and dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from typing import Annotated as Array

import numpy as np
from numpy.typing import NDArray
from trivet import datatypes
from trivet.datatypes import DataType

# fmt: off
__all__ = [
    "Array", "BFloat16", "Bool", "Bytes", "Element", "Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64",
    "Text", "UInt8", "UInt16", "UInt32", "UInt64",
]
# fmt: on


@dataclass(frozen=True, slots=True)
class Element:
    """What the elements of an array are."""

    datatype: DataType
    text: bool = False
    """``BYTES`` that the model sees as ``str``, UTF-8 on the wire."""


Bool = Annotated[NDArray[np.bool_], Element(datatypes.BOOL)]
UInt8 = Annotated[NDArray[np.uint8], Element(datatypes.UINT8)]
UInt16 = Annotated[NDArray[np.uint16], Element(datatypes.UINT16)]
UInt32 = Annotated[NDArray[np.uint32], Element(datatypes.UINT32)]
UInt64 = Annotated[NDArray[np.uint64], Element(datatypes.UINT64)]
Int8 = Annotated[NDArray[np.int8], Element(datatypes.INT8)]
Int16 = Annotated[NDArray[np.int16], Element(datatypes.INT16)]
Int32 = Annotated[NDArray[np.int32], Element(datatypes.INT32)]
Int64 = Annotated[NDArray[np.int64], Element(datatypes.INT64)]
Float16 = Annotated[NDArray[np.float16], Element(datatypes.FP16)]
Float32 = Annotated[NDArray[np.float32], Element(datatypes.FP32)]
Float64 = Annotated[NDArray[np.float64], Element(datatypes.FP64)]
# numpy has no bfloat16; the elements are its bit patterns.
BFloat16 = Annotated[NDArray[np.uint16], Element(datatypes.BF16)]
Bytes = Annotated[NDArray[np.object_], Element(datatypes.BYTES)]
Text = Annotated[NDArray[np.object_], Element(datatypes.BYTES, text=True)]
