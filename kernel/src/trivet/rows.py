"""The usual batch: its first dimension is the batch, and each request has some of the rows. On an instance's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.errors import InternalError
from trivet.tensor import Tensor, element_count

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec
    from trivet.inference import InferenceRequest
    from trivet.memory import GpuMemory, PinnedMemory


def gather_rows(
    requests: Sequence[InferenceRequest],
    name: str,
    memory: PinnedMemory | None = None,
    gpu_memory: GpuMemory | None = None,
) -> Tensor:
    """An input of all requests, concatenated along its first dimension, in such memory where that is given.

    Raises :class:`~trivet.errors.InternalError` where the scheduler put requests together whose shapes differ.
    """
    tensors = [request.inputs[name] for request in requests]
    tail = tensors[0].shape[1:]
    rows = 0
    for tensor in tensors:
        shape = tensor.shape
        if shape[1:] != tail:
            # Joined by their bytes they could give a tensor of the right size, with the wrong values.
            shapes = [list(each.shape) for each in tensors]
            raise InternalError(f"requests with different shapes of input '{name}' are in one batch: {shapes}")
        rows += shape[0]
    return Tensor.concatenated(tensors, (rows, *tail), memory, gpu_memory)


def split_rows(
    spec: ModelSpec, requests: Sequence[InferenceRequest], whole: Tensor, *, in_place: bool = False
) -> list[Tensor]:
    """The rows of each request of an output of the batch, as views; the whole for a request that is alone.

    They are on the host, or with ``in_place`` where the output is.

    Raises :class:`~trivet.errors.InternalError` where the output has not a row for each entry of a larger batch.
    """
    if len(requests) == 1:
        return [whole]
    shape = whole.shape
    total = sum([request.batch_size for request in requests])
    if not shape or shape[0] != total:
        raise InternalError(
            f"output '{whole.name}' of model '{spec.name}' has shape {list(shape)}, expected a first dimension of"
            f" {total} for the batch"
        )
    if in_place and (rows := whole.rows_on_device([request.batch_size for request in requests])) is not None:
        return rows
    tail = shape[1:]
    size = element_count(tail)
    return whole.divided([((request.batch_size, *tail), request.batch_size * size) for request in requests])
