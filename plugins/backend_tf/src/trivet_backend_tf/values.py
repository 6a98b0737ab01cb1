"""Tensors of the kernel into arrays for a session, and a session's arrays into results.

Numbers pass as views in both directions: TensorFlow reads numpy's memory where it lies, and copies what is not aligned
to 64 bytes; it never writes there. Text is an object array of bytes on both sides. What needs a step is bfloat16, which
numpy lacks, and scalars, which a configuration cannot express.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BYTES
from trivet.tensor import Tensor

from trivet_backend_tf.runtime import tf
from trivet_backend_tf.signature import TensorInfo

Feed = Callable[[Tensor], NDArray[Any]]
Fetch = Callable[[Any], NDArray[Any]]

_BFLOAT16 = tf.bfloat16.as_numpy_dtype


def feed_for(info: TensorInfo) -> Feed:
    """How to give an input to the session. A tensor on a device is read to the host: sessions take nothing else."""
    feed: Feed
    if info.datatype is BYTES:
        feed = _text
    elif info.datatype is BF16:
        feed = _bfloat16
    else:
        feed = Tensor.numpy
    if info.dims == ():
        # A scalar travels as [1].
        return lambda tensor: feed(tensor.reshaped(()))
    return feed


def fetch_for(info: TensorInfo, scalar_shape: tuple[int, ...] | None) -> Fetch:
    """How to take an output from the session. A scalar is given ``scalar_shape``, unless that is ``None``."""
    fetch = _bit_patterns if info.datatype is BF16 else _as_is
    if scalar_shape is None:
        return fetch
    return lambda value: _ranked(fetch(value), scalar_shape)


def _ranked(array: NDArray[Any], scalar_shape: tuple[int, ...]) -> NDArray[Any]:
    return array if array.ndim else array.reshape(scalar_shape)


def _text(tensor: Tensor) -> NDArray[Any]:
    array = tensor.numpy()
    return array if array.dtype == np.object_ else array.astype(np.object_)


def _bfloat16(tensor: Tensor) -> NDArray[Any]:
    return tensor.numpy().view(_BFLOAT16)


def _as_is(value: Any) -> NDArray[Any]:
    # A scalar comes as numpy's scalar, or as bytes.
    return value if isinstance(value, np.ndarray) else _scalar(value)


def _scalar(value: Any) -> NDArray[Any]:
    if isinstance(value, bytes):
        array = np.empty((), np.object_)
        array[()] = value
        return array
    return np.asarray(value)


def _bit_patterns(value: Any) -> NDArray[Any]:
    return _as_is(value).view(np.uint16)
