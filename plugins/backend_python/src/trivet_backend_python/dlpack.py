"""What a DLPack capsule says about its tensor, without importing the framework that made it.

Source: ``dlpack.h``, ``DLManagedTensor``: the layout behind a capsule named "dltensor".
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from trivet import datatypes
from trivet.datatypes import DataType

CPU, CUDA_HOST = 1, 3
HOST_DEVICES = (CPU, CUDA_HOST)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_BFLOAT = 4
# DLDataTypeCode and bits. BOOL is 8 bits under a code of its own.
_DATATYPES: dict[tuple[int, int], DataType] = {
    (0, 8): datatypes.INT8,
    (0, 16): datatypes.INT16,
    (0, 32): datatypes.INT32,
    (0, 64): datatypes.INT64,
    (1, 8): datatypes.UINT8,
    (1, 16): datatypes.UINT16,
    (1, 32): datatypes.UINT32,
    (1, 64): datatypes.UINT64,
    (2, 16): datatypes.FP16,
    (2, 32): datatypes.FP32,
    (2, 64): datatypes.FP64,
    (_BFLOAT, 16): datatypes.BF16,
    (6, 8): datatypes.BOOL,
}

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


@dataclass(frozen=True, slots=True)
class Description:
    """A tensor as its capsule describes it."""

    device: tuple[int, int]
    datatype: DataType | None
    """``None`` for an element type that no Triton tensor has."""
    shape: tuple[int, ...]
    is_contiguous: bool
    """Row-major without gaps."""


def describe(capsule: Any) -> Description:
    """Read a capsule that nobody has consumed yet; it can still be consumed after.

    Raises :class:`ValueError` for anything else.
    """
    tensor = _DLTensor.from_address(_get_pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    contiguous = True
    if tensor.strides:
        stride = 1
        for size, actual in zip(reversed(shape), reversed(tensor.strides[: tensor.ndim]), strict=True):
            contiguous = contiguous and (size == 1 or actual == stride)
            stride *= size
        contiguous = contiguous or stride == 0
    datatype = _DATATYPES.get((tensor.type_code, tensor.bits)) if tensor.lanes == 1 else None
    return Description((tensor.device_type, tensor.device_id), datatype, shape, contiguous)


def relabel_as_bf16(capsule: Any) -> None:
    """Say of a capsule of ``uint16`` bit patterns that they are BF16, which numpy cannot say of its arrays."""
    _DLTensor.from_address(_get_pointer(capsule, b"dltensor")).type_code = _BFLOAT


class CapsuleTensor:
    """A bare capsule as the object that ``from_dlpack`` functions take. A capsule can be consumed once."""

    __slots__ = ("_capsule", "_device")

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self._capsule = capsule
        self._device = device

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device
