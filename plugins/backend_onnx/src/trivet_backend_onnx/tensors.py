"""Tensors of the kernel into values that a session takes, and a session's results into arrays.

Plain numbers pass as they are: ``session.run`` works on numpy's memory in place, in both directions, and was the
fastest way for every size that was measured (against I/O binding and ``OrtValue``, 16 to 4 million elements, on the
CPU). What needs a step of its own is text, bfloat16 (which numpy lacks) and scalars (which a configuration cannot
express).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BYTES
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor, object_array

from trivet_backend_onnx.containers import Feed, Fetch, feed_rows, fetch_map, fetch_rows
from trivet_backend_onnx.runtime import ort
from trivet_backend_onnx.signature import TensorSignature

# onnx.TensorProto.BFLOAT16
_BFLOAT16 = 16

# DLDeviceType of dlpack.h: kDLCPU, kDLCUDA
_CPU, _CUDA = 1, 2
# What CUDA's allocators give, so that kernels rely on it; one that reads across its alignment ends all work on the GPU.
_ALIGNMENT = 256


def feed_for(signature: TensorSignature, max_batch_size: int) -> Feed:
    """How to give an input to the session. The result views the tensor's memory where that is possible."""
    if signature.datatype is BYTES:
        feed = _text
    elif signature.datatype is BF16:
        feed = _bfloat16
    else:
        feed = _numbers
    if signature.form == "sequence":
        return feed_rows(feed)
    if signature.dims or max_batch_size > 0:
        return feed
    # A scalar travels as [1]. ONNX Runtime shows a tensor of unknown rank in the same way; like Triton we take it for a
    # scalar.
    return lambda tensor: feed(tensor.reshaped(()))


def feed_on(device_id: int, feed: Feed) -> Feed:
    """The same for a session on a GPU: a tensor that is there already is an ``OrtValue`` over its memory."""

    def feed_in_place(tensor: Tensor) -> Any:
        if tensor.on_device:
            source = tensor.dlpack()
            if tuple(source.__dlpack_device__()) == (_CUDA, device_id):
                value = ort.OrtValue.from_dlpack(source)
                if value.data_ptr() % _ALIGNMENT == 0:
                    return value
        return feed(tensor)

    return feed_in_place


def is_on_device(value: Any) -> bool:
    """Whether a value for the session is in the memory of a GPU."""
    return isinstance(value, ort.OrtValue) and value.device_name() == "cuda"


class DeviceResult:
    """A result in GPU memory, for other frameworks by DLPack. It is complete: a run waits for its stream."""

    __slots__ = ("_value", "shape")

    def __init__(self, value: Any) -> None:
        self._value = value
        self.shape = tuple(value.shape())

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._value._get_c_value().__dlpack_device__()
        return int(kind), int(number)

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **_: Any) -> Any:
        if dl_device is not None and dl_device[0] == _CPU:
            return self._value.numpy().__dlpack__()
        return self._value._get_c_value().__dlpack__()


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


def _numbers(tensor: Tensor) -> NDArray[Any]:
    array = tensor.numpy()
    # ONNX Runtime reads the bytes of a big-endian array as if they were little-endian.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


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
    patterns = np.ascontiguousarray(_numbers(tensor)).reshape(tensor.shape)
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
