"""What a scheduler wants of an execution beside what callers asked for: the states of sequences.

Runs on an instance's thread. What is taken outlives the batch, so it is copied: a view of a row would keep the memory
of the whole batch, and a model may write into its array again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trivet.batching import result_tensor
from trivet.rows import split_rows
from trivet.tensor import Tensor

if TYPE_CHECKING:
    from trivet.backend import OutputValue
    from trivet.config.spec import ModelSpec
    from trivet.datatypes import DataType
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.scheduling import Batch


def split_extra_outputs(
    spec: ModelSpec,
    requests: Sequence[InferenceRequest],
    results: Mapping[str, OutputValue | None],
    wanted: Mapping[str, DataType],
) -> dict[InferenceRequest, dict[str, Tensor]]:
    """The rows of an execution's results by request and name; the tensor as it is where the batch is one request.

    Raises :class:`~trivet.errors.InternalError` where an output is missing, or its datatype or batch dimension is not
    what the scheduler and the requests say.
    """
    whole = {name: result_tensor(spec, name, results, datatype) for name, datatype in wanted.items()}
    if len(requests) == 1:
        # The caller may have asked for it too, and the next step, to which it is an input, may write into its inputs.
        own = spec.outputs if requests[0].outputs is None else {output.name for output in requests[0].outputs}
        return {requests[0]: {name: tensor.read_only() if name in own else tensor for name, tensor in whole.items()}}
    parts = {name: split_rows(spec, requests, tensor) for name, tensor in whole.items()}
    return {
        request: {name: _copied(rows[index]) for name, rows in parts.items()} for index, request in enumerate(requests)
    }


def take_extra_outputs(spec: ModelSpec, batch: Batch, request: InferenceRequest, response: InferenceResponse) -> None:
    """Move what the scheduler wants of a response to ``batch.extra_results``; the caller gets only what is its own.

    Raises :class:`~trivet.errors.InternalError` where a datatype is not what the scheduler said.
    """
    wanted = batch.extra_outputs or {}
    taken = {tensor.name: tensor for tensor in response.outputs if tensor.name in wanted}
    if not taken:
        return
    batch.extra_results[request] = {name: _copied(result_tensor(spec, name, taken, wanted[name])) for name in taken}
    own = spec.outputs if request.outputs is None else {output.name for output in request.outputs}
    response.outputs = [tensor for tensor in response.outputs if tensor.name not in wanted or tensor.name in own]


def _copied(tensor: Tensor) -> Tensor:
    """In memory of its own; a device's cannot be copied from here, and no batch is split there."""
    return tensor if tensor.on_device else Tensor.from_numpy(tensor.name, tensor.numpy().copy(), tensor.datatype)
