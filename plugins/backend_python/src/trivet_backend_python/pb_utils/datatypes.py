"""Element types by name and number, and the wire layout of string tensors.

Source: Triton's Python backend, "Python Backend Utilities", and ``model_config.proto``, enum ``DataType``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet import datatypes, tensor
from trivet.datatypes import BF16, BOOL, BYTES, DataType
from trivet.tensor import Buffer

# BF16 has no numpy type, so Triton's tables do not have it either; such tensors go through DLPack.
_WITH_NUMPY = [datatype for datatype in datatypes.ALL if datatype is not BF16]

TRITON_STRING_TO_NUMPY: dict[str, type] = {datatype.config_name: datatype.numpy.type for datatype in _WITH_NUMPY} | {
    BOOL.config_name: bool
}
_NUMPY_BY_NUMBER: dict[int, type] = {datatype.config_value: datatype.numpy.type for datatype in _WITH_NUMPY}
_BY_DTYPE: dict[np.dtype[Any], DataType] = {datatype.numpy: datatype for datatype in _WITH_NUMPY}


def of_dtype(dtype: np.dtype[Any]) -> DataType | None:
    """The element type of an array in native byte order; ``None`` where Triton knows none (text, complex, ...)."""
    found = _BY_DTYPE.get(dtype)
    return BYTES if found is None and dtype.kind == "S" else found


def triton_string_to_numpy(triton_type_string: str) -> type:
    """The numpy type of ``"TYPE_FP32"`` and its like. Raises :class:`KeyError` for a name that has none."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> type | None:
    """The numpy type of an enumerator's number; ``None`` for one that has none."""
    return _NUMPY_BY_NUMBER.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The enumerator's number of a numpy type or dtype; ``None`` for one that no tensor can have."""
    found = of_dtype(np.dtype(data_type))
    return None if found is None else found.config_value


def serialize_byte_tensor(input_tensor: NDArray[Any]) -> bytes | tuple[()] | None:
    """Length-prefixed elements, row-major, of an array of bytes or objects.

    As in Triton, an empty array gives an empty tuple, and an array of another type ``None``.
    """
    if input_tensor.size == 0:
        return ()
    if input_tensor.dtype.kind not in "OS":
        return None
    return tensor.encode_bytes(input_tensor)


def deserialize_bytes_tensor(encoded_tensor: Buffer) -> NDArray[np.object_]:
    """The elements of what :func:`serialize_byte_tensor` made (or a uint8 array of it), as a 1-D object array."""
    data = memoryview(encoded_tensor).cast("B")
    items: list[bytes] = []
    offset = 0
    while offset < data.nbytes:
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > data.nbytes:
            raise ValueError(f"element {len(items)} ends at byte {offset}, but there are only {data.nbytes} bytes")
        items.append(bytes(data[start:offset]))
    return tensor.object_array(items, (len(items),))
