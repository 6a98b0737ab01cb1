"""Sequences and maps, and the tensors that stand for them.

Triton's ONNX Runtime backend refuses both. The rule here: the elements of a sequence are the rows of a tensor. A
classifier of scikit-learn gives a sequence of maps from class to score: its values are a tensor [N, K], and its keys
are another one, under the output's name and ``.keys``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BYTES
from trivet.errors import InternalError
from trivet.tensor import Tensor, object_array

from trivet_backend_onnx.signature import TensorSignature

Feed = Callable[[Tensor], Any]
Fetch = Callable[[Any], NDArray[Any]]


def feed_rows(feed: Feed) -> Feed:
    """A tensor for an input that is a sequence: each of its rows is an element."""

    def rows(tensor: Tensor) -> list[Any]:
        array = feed(tensor)
        # Not by iteration: that gives numbers in place of arrays without dimensions.
        return [array[index, ...] for index in range(len(array))]

    return rows


def fetch_rows(signature: TensorSignature, element: Fetch, dims: Sequence[int]) -> Fetch:
    """A sequence of tensors as one, the elements along a new first dimension.

    ``dims`` are those of an element, -1 for any, for a sequence that has none. What is returned raises
    :class:`~trivet.errors.InternalError` for elements of different shapes.
    """
    nothing = np.empty((0, *(max(dim, 0) for dim in dims)), signature.numpy)

    def stack(elements: list[Any]) -> NDArray[Any]:
        if not elements:
            return nothing
        arrays = [element(one) for one in elements]
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(str(list(array.shape)) for array in arrays)
            raise InternalError(
                f"output '{signature.name}' is a sequence of tensors of different shapes ({shapes}), which are no"
                " tensor together; pad them in the model, or join them there with ConcatFromSequence"
            )
        return np.stack(arrays)

    return stack


def fetch_map(signature: TensorSignature) -> Fetch:
    """The values of a map, or its keys, as [K]; of a sequence of N maps as [N, K].

    What is returned raises :class:`~trivet.errors.InternalError` for maps whose keys differ.
    """
    taken: Callable[[Mapping[Any, Any]], Any] = dict.keys if signature.keys_of else dict.values  # type: ignore[assignment]

    def expand(maps: list[dict[Any, Any]]) -> NDArray[Any]:
        keys = maps[0].keys() if maps else ()
        different = next((one for one in maps if one.keys() != keys), None)
        if different is not None:
            raise InternalError(
                f"output '{signature.keys_of or signature.name}' is a sequence of maps with different keys"
                f" ({sorted(keys)} and {sorted(different)}), which are no tensor together"
            )
        # ONNX Runtime's maps are sorted by key, and so alike in their order.
        values = [value for one in maps for value in taken(one)]
        shape = (len(maps), len(keys))
        if signature.datatype is BYTES:
            return object_array([value.encode() for value in values], shape)
        return np.array(values, signature.numpy).reshape(shape)

    return expand if signature.form == "maps" else lambda value: expand([value])[0]
