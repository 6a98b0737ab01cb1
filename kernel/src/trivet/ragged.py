"""Batches that are not simply rows: ragged and padded inputs, inputs that describe the batch, scattered outputs, shape
tensors.

Only models whose configuration asks for one of them (:class:`~trivet.config.spec.BatchLayout`) come here, also with a
batch of one request: what a model sees must not depend on how many requests there are. Runs on an instance's thread.

Source: Triton user guide, "Ragged Batching"; ``BatchInput`` and ``BatchOutput`` of ``model_config.proto``; shapes and
values as Triton's backends make them (``BackendInputCollector``, ``BackendOutputResponder``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivet.errors import InternalError, InvalidArgumentError
from trivet.padding import cut, gather_padded
from trivet.reshaping import model_shape, reshape_inputs, reshape_output
from trivet.rows import gather_rows, split_rows
from trivet.tensor import Tensor, element_count

if TYPE_CHECKING:
    from trivet.config.spec import BatchInputSpec, BatchLayout, ModelSpec
    from trivet.inference import InferenceRequest
    from trivet.memory import PinnedMemory


def gather(
    spec: ModelSpec, layout: BatchLayout, requests: Sequence[InferenceRequest], memory: PinnedMemory | None = None
) -> dict[str, Tensor]:
    """The inputs of one execution, put together in ``memory`` where that is given.

    A ragged input is one-dimensional: the elements of all requests, one request after the other. A shape tensor is the
    first request's. Each target of ``batch_input`` is added; other inputs are concatenated along the first dimension,
    padded where the configuration says so.
    """
    single = len(requests) == 1
    pads = layout.padding.values if layout.padding is not None else {}
    inputs = {
        name: tensor
        if single or name in layout.shape_inputs
        else gather_padded(requests, name, pads[name])
        if name in pads
        else gather_rows(requests, name, memory)
        for name, tensor in requests[0].inputs.items()
        if name not in layout.ragged_inputs
    }
    inputs = reshape_inputs(spec, inputs)
    for name in layout.ragged_inputs:
        if name in requests[0].inputs:
            inputs[name] = _flattened([request.inputs[name] for request in requests], memory)
    for described in layout.batch_inputs:
        values = _description(described, _shapes(spec, requests, described.source))
        for target in described.targets:
            inputs[target] = Tensor.from_numpy(target, values, described.datatype)
    return inputs


def split(spec: ModelSpec, layout: BatchLayout, requests: Sequence[InferenceRequest], whole: Tensor) -> list[Tensor]:
    """Each request's part of an output, as views, in the shape that callers see.

    Raises :class:`~trivet.errors.InternalError` where the output has fewer elements than the requests are due.
    """
    name = whole.name
    if name in layout.shape_outputs:
        return [reshape_output(spec, whole)] * len(requests)
    if name not in layout.scattered_outputs:
        parts = split_rows(spec, requests, reshape_output(spec, whole))
        if layout.padding is not None and name in layout.padding.cuts and len(requests) > 1:
            return cut(requests, parts, layout.padding.cuts[name])
        return parts
    source = layout.scattered_outputs[name]
    shapes = [_scattered_shape(spec, name, source, shape) for shape in _shapes(spec, requests, source)]
    counts = [element_count(shape) for shape in shapes]
    due = sum(counts)
    if due > element_count(whole.shape):
        raise InternalError(
            f"output '{name}' of model '{spec.name}' has {element_count(whole.shape)} elements (shape"
            f" {list(whole.shape)}), and the batch needs {due}, as its requests give '{source}' in the shapes"
            f" {[list(request.inputs[source].shape) for request in requests]}"
        )
    return [reshape_output(spec, part) for part in whole.divided(list(zip(shapes, counts, strict=True)))]


def _flattened(tensors: Sequence[Tensor], memory: PinnedMemory | None) -> Tensor:
    if len(tensors) == 1:
        return tensors[0].reshaped((element_count(tensors[0].shape),))
    return Tensor.concatenated(tensors, (sum([element_count(tensor.shape) for tensor in tensors]),), memory)


def _shapes(spec: ModelSpec, requests: Sequence[InferenceRequest], name: str) -> list[tuple[int, ...]]:
    """The shape that an input has in each request, as the model would see it in a batch of that request alone."""
    try:
        return [model_shape(spec, name, request.inputs[name].shape) for request in requests]
    except KeyError:
        raise InvalidArgumentError(
            f"input '{name}' is missing, and model '{spec.name}' needs its shape to form a batch"
        ) from None


def _description(described: BatchInputSpec, shapes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    """The tensor that describes a batch whose requests have ``shapes``, batch dimension included.

    The values count elements by request; those of ``BATCH_ITEM_SHAPE`` repeat for each entry of a request's batch.
    """
    dtype = described.datatype.numpy
    kind = described.kind
    if kind in ("BATCH_ITEM_SHAPE", "BATCH_ITEM_SHAPE_FLATTEN"):
        items = np.array([shape[1:] for shape in shapes], dtype)
        repeated = items.repeat([shape[0] for shape in shapes], axis=0)
        return repeated if kind == "BATCH_ITEM_SHAPE" else repeated.reshape(-1)
    counts = [element_count(shape) for shape in shapes]
    if kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        # Its shape says it all. Zeros, as memory that nobody wrote could hold another model's data.
        return np.zeros(max(counts), dtype)
    if kind == "BATCH_ELEMENT_COUNT":
        return np.array(counts, dtype)
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        counts = [0, *counts]
    # Summed as integers: float32 is exact to 2**24 only, and errors would add up.
    return np.array(list(accumulate(counts)), dtype)


def _scattered_shape(spec: ModelSpec, name: str, source: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a request's part: each variable dimension takes the size of the same dimension of the input."""
    declared = spec.outputs[name]
    dims = declared.reshape if declared.reshape is not None else declared.dims
    if spec.max_batch_size > 0:
        dims = (-1, *dims)
    if any(dim < 0 for dim in dims[len(shape) :]):
        raise InternalError(
            f"output '{name}' of model '{spec.name}' has more dimensions, {list(dims)}, than input '{source}', of"
            f" shape {list(shape)}, which its 'batch_output' scatters it like"
        )
    return tuple(shape[index] if dim < 0 else dim for index, dim in enumerate(dims))
