"""The classification extension: the top classes of an output in place of its scores.

Each class is a ``BYTES`` element ``"value:index"`` or, where the output has a label for it, ``"value:index:label"``.
Source: the classification extension of Triton's protocol; the number format is C++'s ``std::to_string``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BYTES, FP32, FP64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor, object_array

_FLOATS = (FP32, FP64)
_INTEGERS = (INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64)


def classified(request: InferenceRequest, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """``outputs`` with each that the request wants as classes replaced; the very same sequence where there is none.

    Raises :class:`~trivet.errors.InvalidArgumentError` for an output whose datatype has no order to rank by.
    """
    for output in request.outputs or ():
        if output.classification:
            break
    else:
        return outputs
    wanted = {output.name: output.classification for output in request.outputs or () if output.classification}
    model = request.model
    if model is None:
        return outputs
    batched = model.spec.max_batch_size > 0
    return [
        top_classes(tensor, wanted[tensor.name], model.labels.get(tensor.name, ()), batched=batched)
        if tensor.name in wanted
        else tensor
        for tensor in outputs
    ]


def top_classes(tensor: Tensor, count: int, labels: Sequence[str], *, batched: bool) -> Tensor:
    """The ``count`` highest scores, highest first, equal ones in order of their index: ``BYTES`` of shape ``[count]``.

    With ``batched`` the first dimension is the batch, each entry is ranked by itself, and the shape is
    ``[batch, count]``. Entries with fewer than ``count`` scores give all they have. Raises
    :class:`~trivet.errors.InvalidArgumentError` for a tensor of other elements than integers, FP32 and FP64.
    """
    datatype = tensor.datatype
    if datatype not in _FLOATS and datatype not in _INTEGERS:
        raise InvalidArgumentError(f"class result not available for output due to unsupported type '{datatype}'")
    scores = tensor.numpy()
    has_batch = batched and scores.ndim > 0
    rows = scores.reshape(len(scores), -1) if has_batch and scores.size else scores.reshape(1, -1)
    count = min(count, rows.shape[1])
    classes: list[bytes] = []
    for row in rows:
        for index in _ranked(row)[:count].tolist():
            value = f"{row[index]:f}" if datatype in _FLOATS else str(row[index])
            label = f":{labels[index]}" if index < len(labels) else ""
            classes.append(f"{value}:{index}{label}".encode())
    shape = (len(scores), count) if has_batch else (count,)
    return Tensor.from_numpy(tensor.name, object_array(classes, shape), BYTES)


def _ranked(row: NDArray[Any]) -> NDArray[np.intp]:
    """Indices by falling score; NaN is lowest. A stable sort of the reversed row, reversed, keeps equals in order."""
    if row.dtype.kind == "f":
        row = np.where(np.isnan(row), -np.inf, row)
    return len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
