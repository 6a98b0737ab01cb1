"""Tensors of the kernel into values that a session takes, and a session's results into arrays.

Plain numbers pass as they are: ``session.run`` works on numpy's memory in place, in both directions, and was the
fastest way for every size that was measured (against I/O binding and ``OrtValue``, 16 to 4 million elements, on the
CPU). What needs a step of its own is text, bfloat16 (which numpy lacks) and scalars (which a configuration cannot
express).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BYTES, DataType
from trivet.dlpack import CPU, CUDA, DeviceMemory, describe
from trivet.errors import InvalidArgumentError
from trivet.memory import GpuMemory
from trivet.tensor import SupportsDLPack, Tensor, element_count, object_array

from trivet_backend_onnx.containers import Feed, Fetch, feed_rows, fetch_map, fetch_rows
from trivet_backend_onnx.runtime import ort
from trivet_backend_onnx.signature import TensorSignature

# onnx.TensorProto.BFLOAT16
_BFLOAT16 = 16

# What CUDA's allocators give, so that kernels rely on it; one that reads across its alignment ends all work on the GPU.
_ALIGNMENT = 256


def feed_for(signature: TensorSignature, max_batch_size: int) -> Feed:
    """How to give an input to the session. The result views the tensor's memory where that is possible."""
    feed: Feed
    if signature.datatype is BYTES:
        feed = _text
    elif signature.datatype is BF16:
        feed = _bfloat16
    else:
        feed = Tensor.numpy
    if signature.form == "sequence":
        return feed_rows(feed)
    if signature.dims or max_batch_size > 0:
        return feed
    # A scalar travels as [1]. ONNX Runtime shows a tensor of unknown rank in the same way; like Triton we take it for a
    # scalar.
    return lambda tensor: feed(tensor.reshaped(()))


@dataclass(frozen=True, slots=True)
class Placed:
    """An input that is complete, on the session's GPU. It is bound by its address, which takes every element type."""

    address: int
    shape: tuple[int, ...]
    element_type: Any
    """As ``IOBinding.bind_input`` takes it: numpy's, or the number of ``onnx.TensorProto`` where numpy has none."""
    keeps: object
    """What keeps the memory valid."""


def feed_on(device_id: int, feed: Feed, gpu_memory: GpuMemory | None) -> Feed:
    """The same for a session on a GPU: a tensor that is there already is :class:`Placed`.

    What lies across CUDA's alignment, or may still be being computed, is copied in ``gpu_memory``, or goes by the host
    where there is none: a session can wait for nothing but all that the GPU does.
    """

    def feed_in_place(tensor: Tensor) -> Any:
        if tensor.on_device:
            source = tensor.dlpack()
            if tuple(source.__dlpack_device__()) == (CUDA, device_id):
                placed = _placed(tensor, source) if getattr(source, "is_complete", False) else None
                if placed is None and gpu_memory is not None:
                    copy = gpu_memory.joined([tensor], tensor.shape)
                    placed = _placed(tensor, copy) if copy is not None else None
                if placed is not None:
                    return placed
        return feed(tensor)

    return feed_in_place


def _placed(tensor: Tensor, source: SupportsDLPack) -> Placed | None:
    capsule = source.__dlpack__()
    found = describe(capsule)
    size = element_count(tensor.shape) * tensor.datatype.itemsize
    if not found.is_contiguous or found.byte_size != size or not size or found.address % _ALIGNMENT:
        return None
    element_type = _BFLOAT16 if tensor.datatype is BF16 else tensor.datatype.numpy.type
    return Placed(found.address, tensor.shape, element_type, capsule)


class DeviceResult(DeviceMemory):
    """A result in GPU memory. It is complete: a run waits for its stream. Who asks for it on the host gets a copy."""

    __slots__ = ("_value",)

    def __init__(self, session: Any, value: Any, device_id: int, datatype: DataType) -> None:
        """``value`` is an ``OrtValue`` of ``session``, whose allocator it needs as long as it is there."""
        # A tuple lets go of its last element first.
        super().__init__((session, value), value.data_ptr(), (CUDA, device_id), datatype, tuple(value.shape()))
        self._value = value

    def on_host(self) -> DeviceMemory:
        """A copy in host memory."""
        array = self._value.numpy()
        return DeviceMemory(array, array.ctypes.data, (CPU, 0), self.datatype, self.shape)


def fetch_for(
    signature: TensorSignature, shape: Sequence[int], max_batch_size: int
) -> Callable[[Any], NDArray[Any] | None]:
    """How to take an output from the session: ``None`` where it is optional and the model gave none.

    ``shape`` is what the configuration says of the model's output, without the batch dimension; a scalar takes it.
    """
    fetch: Fetch
    if signature.form in ("map", "maps"):
        fetch = fetch_map(signature)
    else:
        if signature.datatype is BYTES:
            fetch = _encoded
        elif signature.datatype is BF16:
            fetch = _bit_patterns
        else:
            fetch = _as_is
        if signature.form == "sequence":
            fetch = fetch_rows(signature, fetch, shape if max_batch_size > 0 else shape[1:])
        elif not signature.dims and max_batch_size == 0:
            fetch = _shaped(fetch, tuple(shape))
    if not signature.optional:
        return fetch
    return lambda value: None if value is None else fetch(value)


def _shaped(fetch: Fetch, scalar_shape: tuple[int, ...]) -> Fetch:
    def fetch_scalar(value: Any) -> NDArray[Any]:
        array = fetch(value)
        return array if array.ndim else array.reshape(scalar_shape)

    return fetch_scalar


def _text(tensor: Tensor) -> NDArray[Any]:
    """Text is decoded here: given bytes, ONNX Runtime would take their Python representation (``b'...'``)."""
    array = tensor.numpy()
    items = array.reshape(-1).tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError:
        raise _not_utf8(tensor.name, items) from None
    return object_array(texts, array.shape)


def _not_utf8(name: str, items: list[Any]) -> InvalidArgumentError:
    for index, item in enumerate(items):
        try:
            item.decode()
        except UnicodeDecodeError as error:
            return InvalidArgumentError(
                f"element {index} of input '{name}' is not valid UTF-8 (byte 0x{item[error.start]:02x} at offset"
                f" {error.start}), which ONNX models need of text"
            )
        except AttributeError:
            continue
    raise AssertionError("unreachable: called for items one of which cannot be decoded")


def _bfloat16(tensor: Tensor) -> Any:
    patterns = np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(patterns, _BFLOAT16)


def _as_is(value: Any) -> NDArray[Any]:
    array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
    return array


def _encoded(value: Any) -> NDArray[Any]:
    array = _as_is(value)
    return object_array([item.encode() for item in array.reshape(-1).tolist()], array.shape)


class _HostMemory:
    """The memory of an ``OrtValue`` on the host for numpy, which keeps this object, and it the memory."""

    __slots__ = ("__array_interface__", "_value")

    def __init__(self, value: Any, typestr: str) -> None:
        self._value = value
        self.__array_interface__ = {
            "version": 3, "shape": tuple(value.shape()), "typestr": typestr, "data": (value.data_ptr(), False),
        }  # fmt: skip


def _bit_patterns(value: Any) -> NDArray[Any]:
    """A bfloat16 ``OrtValue`` as uint16; ONNX Runtime itself gives no array, and no DLPack that numpy would take."""
    shape = tuple(value.shape())
    if 0 in shape:
        return np.empty(shape, dtype=np.uint16)
    return np.asarray(_HostMemory(value, np.dtype(np.uint16).str))
