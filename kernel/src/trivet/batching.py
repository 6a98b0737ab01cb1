"""Tensors of many requests into one batch, and the batch's results back into responses.

A batch of one request is not copied in either direction. A larger batch is copied once on the way in; on the way out
each response holds a view of its rows. There is no loop over elements, and no memory is used again: a model may return
its input, and a response may live as long as its reader likes. Runs on an instance's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trivet import datatypes, ragged
from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.reshaping import reshape_inputs, reshape_output
from trivet.rows import gather_rows, split_rows
from trivet.tensor import Tensor

if TYPE_CHECKING:
    from trivet.backend import OutputValue
    from trivet.config.spec import ModelSpec
    from trivet.datatypes import DataType
    from trivet.memory import GpuMemory, PinnedMemory


def gather(
    spec: ModelSpec,
    requests: Sequence[InferenceRequest],
    extra_inputs: Mapping[str, Tensor] | None,
    memory: PinnedMemory | None = None,
    gpu_memory: GpuMemory | None = None,
) -> dict[str, Tensor]:
    """The inputs of one execution, in the shapes that the model wants (``reshape`` applied).

    With several requests each input is concatenated along its first dimension, unless the configuration makes it
    ragged or a shape tensor; all requests must give the same inputs. ``extra_inputs`` are the scheduler's, for the
    batch as a whole, and are not reshaped. What is put together, but for padded inputs, is in ``memory`` where that is
    given, and in ``gpu_memory`` where that is given and all of it is on a GPU.

    Raises :class:`~trivet.errors.InvalidArgumentError` where memory and shape of a tensor disagree, or an input is
    missing that ``batch_input`` describes.
    """
    if spec.layout is not None:
        inputs = ragged.gather(spec, spec.layout, requests, memory)
    elif len(requests) == 1:
        inputs = reshape_inputs(spec, requests[0].inputs)
    else:
        inputs = reshape_inputs(
            spec, {name: gather_rows(requests, name, memory, gpu_memory) for name in requests[0].inputs}
        )
    return {**inputs, **extra_inputs} if extra_inputs else inputs


def share_extra_inputs(requests: Sequence[InferenceRequest], extra_inputs: Mapping[str, Tensor]) -> None:
    """Give each request its rows of the scheduler's inputs, as views, for instances that take requests one by one."""
    start = 0
    for request in requests:
        end = start + request.batch_size
        rows = {
            name: Tensor.from_numpy(name, tensor.numpy()[start:end], tensor.datatype)
            for name, tensor in extra_inputs.items()
        }
        request.inputs = {**request.inputs, **rows}
        start = end


def split(
    spec: ModelSpec,
    requests: Sequence[InferenceRequest],
    results: Mapping[str, OutputValue | None],
    placed: Collection[str] = (),
) -> list[InferenceResponse]:
    """One response per request from the results of one execution, without the outputs that are ``None``.

    Rows are on the host, but for those of outputs in ``placed``, which stay on the device if they are on one.

    Raises :class:`~trivet.errors.InternalError` where an output is missing, or its datatype or batch dimension is not
    what the configuration and the requests say, and for what is no mapping of outputs.
    """
    if type(results) is not dict and not isinstance(results, Mapping):
        raise InternalError(
            f"model '{spec.name}' returned a {type(results).__name__}, expected a mapping of outputs by name"
        )
    if len(requests) == 1 and spec.layout is None:
        names = _names(spec, requests[0], results)
        return [InferenceResponse([reshape_output(spec, _output(spec, name, results)) for name in names])]
    wanted = [_names(spec, request, results) for request in requests]
    parts: dict[str, list[Tensor]] = {}
    for name in {name: None for names in wanted for name in names}:
        whole = _output(spec, name, results)
        if spec.layout is None:
            parts[name] = split_rows(spec, requests, reshape_output(spec, whole), in_place=name in placed)
        else:
            parts[name] = ragged.split(spec, spec.layout, requests, whole)
    return [InferenceResponse([parts[name][index] for name in names]) for index, names in enumerate(wanted)]


def _output(spec: ModelSpec, name: str, results: Mapping[str, OutputValue | None]) -> Tensor:
    return result_tensor(spec, name, results, spec.outputs[name].datatype)


def result_tensor(spec: ModelSpec, name: str, results: Mapping[str, OutputValue | None], datatype: DataType) -> Tensor:
    """An output of an execution as a tensor, in the shape that the model gave it.

    Raises :class:`~trivet.errors.InternalError` where it is missing or of another datatype.
    """
    value = results.get(name)
    if value is None:
        raise InternalError(f"model '{spec.name}' did not return output '{name}'; it returned {sorted(results)}")
    if isinstance(value, Tensor):
        tensor = value if value.name == name else value.renamed(name)
    elif isinstance(value, np.ndarray):
        # BF16 and UINT16 share a host type; the configuration tells which is meant.
        kind = datatype if value.dtype == datatype.numpy else datatypes.from_numpy(value.dtype)
        tensor = Tensor.from_numpy(name, value, kind)
    else:
        # A framework's own tensor: `shape` is an attribute wherever DLPack is spoken, though DLPack does not say so.
        shape = getattr(value, "shape", None)
        if shape is None:
            raise InternalError(
                f"model '{spec.name}' returned a {type(value).__name__} for output '{name}', expected an array"
            )
        tensor = Tensor.from_dlpack(name, value, datatype, tuple(shape))
    if tensor.datatype is not datatype:
        raise InternalError(
            f"output '{name}' of model '{spec.name}' has datatype {tensor.datatype}, expected {datatype}"
        )
    return tensor


def _names(spec: ModelSpec, request: InferenceRequest, results: Mapping[str, OutputValue | None]) -> Sequence[str]:
    """The outputs of a response; one that is missing from the results altogether is among them."""
    names = spec.output_names if request.outputs is None else [wanted.name for wanted in request.outputs]
    return [name for name in names if name not in results or results[name] is not None]
