"""DLPack without a framework: what a capsule says of its tensor, and memory at an address as a tensor for anybody.

For plugins that own memory on a device themselves, or have to know where another's tensor lies. Whoever has a framework
uses that framework's ``from_dlpack``. Any thread.

Source: DLPack 1.1, ``dlpack.h`` (layout of the structures, codes of devices and types), and the Python array API
standard 2023.12 (``__dlpack__``, ``__dlpack_device__``, names of the capsules and who deletes what).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import copy
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from trivet import datatypes
from trivet.datatypes import BF16, BOOL, DataType

if TYPE_CHECKING:
    from trivet.tensor import SupportsDLPack

CPU, CUDA, CUDA_HOST = 1, 2, 3
"""Kinds of devices: ``kDLCPU``, ``kDLCUDA``, and ``kDLCUDAHost`` for pinned host memory."""
HOST_DEVICES = (CPU, CUDA_HOST)
"""Those whose memory the CPU can read."""

_KINDS = {"i": 0, "u": 1, "f": 2}  # kDLInt, kDLUInt, kDLFloat, by numpy's kind of dtype
_BFLOAT, _BOOL = 4, 6  # kDLBfloat, kDLBool


def _code_of(datatype: DataType) -> tuple[int, int]:
    """``DLDataTypeCode`` and bits of an element."""
    if datatype is BF16:
        return _BFLOAT, 16
    return (_BOOL if datatype is BOOL else _KINDS[datatype.numpy.kind]), 8 * datatype.itemsize


_DATATYPES = {_code_of(datatype): datatype for datatype in datatypes.ALL if datatype is not datatypes.BYTES}

# A consumer gives a capsule another name when it has taken what is inside.
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


# --- what a capsule says


class Description(NamedTuple):
    """A tensor as its capsule describes it. The capsule, or whoever consumes it, keeps the memory valid."""

    device: tuple[int, int]
    """Kind and number, as ``__dlpack_device__`` gives them."""
    datatype: DataType | None
    """``None`` for an element type that no tensor of the KServe protocol has."""
    shape: tuple[int, ...]
    address: int
    """Of the first element, 0 where there is none."""
    byte_size: int
    """Of the elements, without gaps between them."""
    is_contiguous: bool
    """Row-major without gaps."""


def describe(capsule: Any) -> Description:
    """Read a capsule that nobody has consumed yet; it can still be consumed after.

    Raises :class:`ValueError` for anything else.
    """
    tensor = _tensor_in(capsule)
    shape = tuple(tensor.shape[: tensor.ndim])
    count = prod(shape)
    contiguous = True
    if tensor.strides and count:
        expected = 1
        for size, stride in zip(reversed(shape), reversed(tensor.strides[: tensor.ndim]), strict=True):
            contiguous = contiguous and (size == 1 or stride == expected)
            expected *= size
    return Description(
        (tensor.device_type, tensor.device_id),
        _DATATYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None,
        shape,
        (tensor.data or 0) + tensor.byte_offset,
        count * tensor.bits * tensor.lanes // 8,
        contiguous,
    )


def relabel(capsule: Any, datatype: DataType) -> None:
    """Say of a capsule that nobody has consumed yet that its elements are of another type of the same size.

    For BF16, which numpy has no type for. Each call of a producer makes a description of its own, so nobody else sees
    it changed. Raises :class:`ValueError` as :func:`describe` does.
    """
    _tensor_in(capsule).code = _code_of(datatype)[0]


def _tensor_in(capsule: Any) -> Any:
    address = id(capsule)
    for name, structure in _STRUCTURES.items():
        if _is_valid(address, name):
            return structure.from_address(_pointer(address, name)).dl_tensor
    raise ValueError(f"expected a DLPack capsule that nobody has consumed, got {capsule!r}")


class BitPatterns:
    """Hands a BF16 tensor on as ``uint16``, over the same memory, for numpy."""

    def __init__(self, tensor: SupportsDLPack) -> None:
        self._tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._tensor.__dlpack__(**options)
        relabel(capsule, datatypes.UINT16)
        return capsule


_LEGACY_DEFAULT_STREAM = 1
"""Its number in DLPack. The standard lets ``None`` mean the same, PyTorch takes it for nobody who waits."""


class OnGpu:
    """Hands a framework's tensor on a GPU on, to consumers on any thread.

    For frameworks that export only what is on the thread's current GPU, and that cannot copy to the host on the way, as
    PyTorch and PyTorch before 2.9. A consumer that names no stream is taken for the legacy default one, which waits for
    the elements then.
    """

    __slots__ = ("_current", "_tensor", "_to_host", "is_complete", "shape")

    def __init__(
        self,
        tensor: SupportsDLPack,
        shape: tuple[int, ...],
        *,
        current: Callable[[], AbstractContextManager[Any]],
        to_host: Callable[[], SupportsDLPack],
        is_complete: bool = False,
    ) -> None:
        """``current`` makes the tensor's GPU the thread's current one; ``to_host`` copies it, and waits for that.

        ``is_complete``: the elements are there, so that even a consumer who cannot wait may read them.
        """
        self._tensor = tensor
        self.shape = shape
        self._current = current
        self._to_host = to_host
        self.is_complete = is_complete

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._tensor.__dlpack_device__()
        return int(kind), int(number)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Raises :class:`BufferError` for a copy elsewhere than on the host."""
        device = self.__dlpack_device__()
        wanted = device if dl_device is None else tuple(dl_device)
        to_host = wanted == (CPU, 0) and copy is not False
        if not to_host and (copy or wanted != device):
            raise _cannot_move(device)
        with self._current():
            if to_host:
                return self._to_host().__dlpack__()
            return self._tensor.__dlpack__(stream=_LEGACY_DEFAULT_STREAM if stream is None else stream)


def _cannot_move(device: tuple[int, int]) -> BufferError:
    return BufferError(f"this memory is on device {device}, and is neither copied nor moved")


# --- memory at an address


class DeviceMemory:
    """A row-major tensor at an address of a device, that ``owner`` keeps valid while anybody uses it.

    ``device`` is kind and number, as ``__dlpack_device__`` gives them. What is there must be there already: consumers
    on any stream read at once.
    """

    __slots__ = ("address", "datatype", "device", "owner", "shape")

    is_complete = True

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

    def reshaped(self, shape: tuple[int, ...]) -> Self:
        """The same elements under another shape of as many."""
        other = copy(self)
        other.shape = shape
        return other

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
        """A view of the memory; for the CPU, where ``copy`` allows one, of what :meth:`on_host` gives.

        Raises :class:`BufferError` where any other copy is asked for.
        """
        wanted = self.device if dl_device is None else tuple(dl_device)
        if wanted != self.device and wanted == (CPU, 0) and copy is not False:
            return self.on_host().__dlpack__(max_version=max_version)
        if copy or wanted != self.device:
            raise _cannot_move(self.device)
        return _capsule(self, {} if max_version is None else {"max_version": max_version})

    def on_host(self) -> DeviceMemory:
        """A copy in host memory, from subclasses that know how to make one; this one raises :class:`BufferError`."""
        raise _cannot_move(self.device)


class Rows:
    """Some rows of a tensor of any framework, over the same memory. Who waits for the elements of these waits for all.

    ``shape`` is the rows', and its first dimension how many they are, from ``first`` on.
    """

    __slots__ = ("_first", "_whole", "datatype", "shape")

    def __init__(self, whole: SupportsDLPack, first: int, datatype: DataType, shape: tuple[int, ...]) -> None:
        self._whole = whole
        self._first = first
        self.datatype = datatype
        self.shape = shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._whole.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        """Raises :class:`BufferError` where the whole is not row-major, and what the framework raises."""
        capsule = self._whole.__dlpack__(**options)
        found = describe(capsule)
        if not found.is_contiguous:
            raise BufferError("this memory is not row-major, and rows of it have gaps")
        start = found.address + self._first * prod(self.shape[1:]) * self.datatype.itemsize
        rows = DeviceMemory(capsule, start, found.device, self.datatype, self.shape)
        return rows.__dlpack__(max_version=options.get("max_version"))


class _Addressed:
    """Memory for numpy, whose arrays keep this object, and it the owner."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, memory: DeviceMemory) -> None:
        self._owner = memory.owner
        self.__array_interface__ = {
            "version": 3, "shape": memory.shape, "typestr": memory.datatype.numpy.str, "data": (memory.address, False),
        }  # fmt: skip


def _capsule(memory: DeviceMemory, options: Mapping[str, Any]) -> Any:
    """The capsule of an array of numpy, which nobody reads there, then changed to say where the memory is.

    What ends a capsule must be machine code, as numpy's is: a consumer that refuses it drops it while its own exception
    is raised, and code of Python that runs then ends the process.
    """
    capsule = np.asarray(_Addressed(memory)).__dlpack__(**options)
    tensor = _tensor_in(capsule)
    tensor.data = memory.address  # numpy has a place of its own for arrays without elements
    tensor.device_type, tensor.device_id = memory.device
    tensor.code = _code_of(memory.datatype)[0]
    return capsule


# By address, as the prototypes have it.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
