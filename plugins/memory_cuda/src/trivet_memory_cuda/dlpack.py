"""Memory at an address for whoever speaks DLPack, and the memory behind another's tensor.

Source: DLPack 1.1, ``dlpack.h`` (layout of the structures), and the Python array API standard 2023.12
(``__dlpack__``, ``__dlpack_device__``, names of the capsules and who deletes what).
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any, NamedTuple

from trivet.datatypes import BF16, BOOL, DataType
from trivet.tensor import SupportsDLPack

CPU, CUDA = 1, 2
"""``kDLCPU`` and ``kDLCUDA`` of ``DLDeviceType``."""

_KINDS = {"i": 0, "u": 1, "f": 2}  # kDLInt, kDLUInt, kDLFloat, by numpy's kind of dtype
_BFLOAT, _BOOL = 4, 6  # kDLBfloat, kDLBool

_VERSION = (1, 1)
# A consumer gives these to another name when it has taken what is inside. CPython keeps no copy of them.
_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("dl_tensor", _DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("dl_tensor", _DLTensor),
    )


_STRUCTURES: dict[bytes, type[Any]] = {_PLAIN: _DLManagedTensor, _VERSIONED: _DLManagedTensorVersioned}


class DeviceMemory:
    """A row-major tensor at an address of a device, that ``owner`` keeps valid while anybody uses it.

    ``device`` is kind and number, as ``__dlpack_device__`` gives them. What is there must be there already: consumers
    on any stream read at once.
    """

    __slots__ = ("address", "datatype", "device", "owner", "shape")

    def __init__(
        self, owner: object, address: int, device: tuple[int, int], datatype: DataType, shape: tuple[int, ...]
    ) -> None:
        self.owner = owner
        self.address = address
        self.device = device
        self.datatype = datatype
        self.shape = shape

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return prod(self.shape) * self.datatype.itemsize

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A view of the memory. Raises :class:`BufferError` where a copy is asked for."""
        if copy or (dl_device is not None and tuple(dl_device) != self.device):
            raise BufferError(f"this memory is on device {self.device}, and is neither copied nor moved")
        return _capsule(self, _VERSIONED if max_version is not None and max_version[0] >= 1 else _PLAIN)


def _capsule(memory: DeviceMemory, name: bytes) -> Any:
    managed = _STRUCTURES[name]()
    if name == _VERSIONED:
        managed.major, managed.minor = _VERSION
    ndim = len(memory.shape)
    shape = (ctypes.c_int64 * ndim)(*memory.shape)
    # Not every consumer takes "no strides" for row-major, which the standard allows.
    strides = (ctypes.c_int64 * ndim)(*(prod(memory.shape[axis + 1 :]) for axis in range(ndim)))
    tensor = managed.dl_tensor
    tensor.data = memory.address
    tensor.device_type, tensor.device_id = memory.device
    tensor.ndim = ndim
    tensor.code, tensor.bits, tensor.lanes = _type_of(memory.datatype)
    tensor.shape, tensor.strides = shape, strides
    managed.deleter = ctypes.cast(_deleter, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    # The structure does not keep what its pointers point to.
    _lent[address] = (memory.owner, managed, shape, strides)
    return _new(address, name, ctypes.cast(_destructor, ctypes.c_void_p))


def _type_of(datatype: DataType) -> tuple[int, int, int]:
    if datatype is BF16:
        return _BFLOAT, 16, 1
    return (_BOOL if datatype is BOOL else _KINDS[datatype.numpy.kind]), 8 * datatype.itemsize, 1


_lent: dict[int, tuple[object, ...]] = {}
"""What consumers use, by the address of the structure that they were given; it is theirs until they delete it."""


def _delete(managed: int) -> None:
    """The ``deleter`` of a structure: a consumer is done, on whatever thread."""
    _lent.pop(managed, None)


def _drop(capsule: int) -> None:
    """The destructor of a capsule. One that kept its name was never consumed."""
    for name in _STRUCTURES:
        if _is_valid(capsule, name):
            _delete(_pointer(capsule, name))


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_deleter, _destructor = _CALLBACK(_delete), _CALLBACK(_drop)


class Elements(NamedTuple):
    """Where the elements of another's tensor are. ``capsule`` keeps them there."""

    capsule: Any
    address: int
    byte_size: int


def elements(tensor: SupportsDLPack, stream: int) -> Elements | None:
    """The memory of a tensor on a CUDA device, usable on ``stream``; ``None`` where it is not row-major in one piece.

    The tensor's producer makes the stream wait for what is still being computed.
    """
    capsule = tensor.__dlpack__(stream=stream)
    # An address and not the object: the capsule's own prototypes take the one that its destructor needs.
    name = _PLAIN if _is_valid(id(capsule), _PLAIN) else _VERSIONED
    found = _STRUCTURES[name].from_address(_pointer(id(capsule), name)).dl_tensor
    shape = found.shape[: found.ndim]
    count = prod(shape)
    if found.strides and count:
        expected = 1
        for size, stride in zip(reversed(shape), reversed(found.strides[: found.ndim]), strict=True):
            if size != 1 and stride != expected:
                return None
            expected *= size
    byte_size = count * found.bits * found.lanes // 8
    return Elements(capsule, (found.data or 0) + found.byte_offset, byte_size)


# By address, as a capsule that is being destroyed must not be referred to again.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
