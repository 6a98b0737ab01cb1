"""Requests of different shapes in one batch: inputs padded to the largest, outputs cut back to each request's size.

Only models whose configuration asks for it (:class:`~trivet.config.padding.Padding`) come here, and only with two
requests or more: one that is alone is never padded. Runs on an instance's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivet.errors import InternalError
from trivet.rows import gather_rows
from trivet.tensor import Tensor

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest


def gather_padded(requests: Sequence[InferenceRequest], name: str, value: Any) -> Tensor:
    """An input of all requests: the batch dimensions one after the other, each other one as large as the largest.

    ``value`` is a scalar of the input's dtype, and stands behind the elements of whoever has fewer. All elements are
    copied once.
    """
    tensors = [request.inputs[name] for request in requests]
    tails = [tensor.shape[1:] for tensor in tensors]
    if tails.count(tails[0]) == len(tails):
        return gather_rows(requests, name)
    first = tensors[0]
    largest = map(max, *tails)
    batch = np.full((sum([tensor.shape[0] for tensor in tensors]), *largest), value, first.datatype.numpy)
    start = 0
    for tensor in tensors:
        end = start + tensor.shape[0]
        batch[(slice(start, end), *map(slice, tensor.shape[1:]))] = tensor.numpy()
        start = end
    return Tensor.from_numpy(name, batch, first.datatype)


def cut(
    requests: Sequence[InferenceRequest], parts: Sequence[Tensor], followed: Sequence[tuple[int, str, int]]
) -> list[Tensor]:
    """The parts of an output without what padding added: views, copied where they would not be contiguous.

    ``followed`` says which axes are cut: axis, the input whose size in the request it gets, and the axis there. Raises
    :class:`~trivet.errors.InternalError` where the output does not have the size that the input was padded to.
    """
    for axis, source, source_axis in followed:
        padded = max([request.inputs[source].shape[source_axis] for request in requests])
        size = parts[0].shape[axis]
        if size != padded:
            raise InternalError(
                f"output '{parts[0].name}' has size {size} on axis {axis} of a batch, expected {padded}, to which input"
                f" '{source}' was padded, as 'dynamic_batching.unpad' of model '{requests[0].model_name}' says"
            )
    return [_cut(request, part, followed) for request, part in zip(requests, parts, strict=True)]


def _cut(request: InferenceRequest, part: Tensor, followed: Sequence[tuple[int, str, int]]) -> Tensor:
    shape = list(part.shape)
    for axis, source, source_axis in followed:
        shape[axis] = request.inputs[source].shape[source_axis]
    if tuple(shape) == part.shape:
        return part
    # Made contiguous here, as a protocol would do it on the event loop.
    array = np.ascontiguousarray(part.numpy()[tuple(map(slice, shape))])
    return Tensor.from_numpy(part.name, array, part.datatype)
