"""BF16 tensors of frameworks as host arrays. numpy has no such type, so it is shown their bit patterns.

Source: DLPack 1.0, ``dlpack.h`` (layout of ``DLTensor``), and the Python array API standard (``__dlpack__``).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivet.tensor import SupportsDLPack

_UNSIGNED = 1  # kDLUInt of DLDataTypeCode
# Where DLTensor.dtype.code is: after data, device and ndim; a versioned capsule has version, context, deleter and flags
# in front of the tensor.
_CODE_OFFSETS = {b"dltensor": 20, b"dltensor_versioned": 52}

_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


class BitPatterns:
    """Hands a BF16 tensor on as ``uint16``, over the same memory."""

    def __init__(self, tensor: SupportsDLPack) -> None:
        self._tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        # Each call of a producer makes a description of its own, so nobody else sees this one changed.
        capsule = self._tensor.__dlpack__(**options)
        for name, offset in _CODE_OFFSETS.items():
            if _is_valid(capsule, name):
                ctypes.c_uint8.from_address(_pointer(capsule, name) + offset).value = _UNSIGNED
        return capsule
