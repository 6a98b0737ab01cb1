"""Tensors of many requests into one batch, and the batch's results back into responses.

A batch of one request is not copied in either direction. A larger batch is copied once on the way in; on the way out
each response holds a view of its rows. Runs on an instance's thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trivet import datatypes
from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor, element_count

if TYPE_CHECKING:
    from trivet.backend import OutputValue
    from trivet.config.spec import ModelSpec, TensorSpec


def gather(
    spec: ModelSpec, requests: Sequence[InferenceRequest], extra_inputs: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """The inputs of one execution, in the shapes that the model wants (``reshape`` applied).

    With several requests each input is concatenated along its first dimension; all of them must give the same inputs.
    ``extra_inputs`` are the scheduler's, for the batch as a whole, and are not reshaped.
    """
    if len(requests) == 1:
        inputs = requests[0].inputs
    else:
        inputs = {
            name: Tensor.from_numpy(
                name, np.concatenate([request.inputs[name].numpy() for request in requests]), tensor.datatype
            )
            for name, tensor in requests[0].inputs.items()
        }
    inputs = reshape_inputs(spec, inputs)
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
    spec: ModelSpec, requests: Sequence[InferenceRequest], results: Mapping[str, OutputValue]
) -> list[InferenceResponse]:
    """One response per request from the results of one execution.

    Raises :class:`~trivet.errors.InternalError` where an output is missing, or its datatype or batch dimension is not
    what the configuration and the requests say.
    """
    if len(requests) == 1:
        request = requests[0]
        return [InferenceResponse([_output(spec, name, results) for name in _names(spec, request)])]
    total = sum(request.batch_size for request in requests)
    whole: dict[str, Tensor] = {}
    responses: list[InferenceResponse] = []
    start = 0
    for request in requests:
        end = start + request.batch_size
        outputs: list[Tensor] = []
        for name in _names(spec, request):
            tensor = whole.get(name)
            if tensor is None:
                tensor = whole[name] = _output(spec, name, results)
                if not tensor.shape or tensor.shape[0] != total:
                    raise InternalError(
                        f"output '{name}' of model '{spec.name}' has shape {list(tensor.shape)}, expected a first"
                        f" dimension of {total} for the batch"
                    )
            outputs.append(Tensor.from_numpy(name, tensor.numpy()[start:end], tensor.datatype))
        responses.append(InferenceResponse(outputs))
        start = end
    return responses


def reshape_inputs(spec: ModelSpec, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``inputs`` in the shapes that the model wants; the same object where that makes no difference."""
    if not spec.reshaped_inputs:
        return inputs
    return {
        name: tensor.reshaped(_reshaped(spec, spec.inputs[name], tensor.shape, inward=True))
        if name in spec.reshaped_inputs
        else tensor
        for name, tensor in inputs.items()
    }


def reshape_outputs(spec: ModelSpec, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """A model's outputs in the shapes that callers see; the same object where that makes no difference.

    Raises :class:`~trivet.errors.InternalError` where an output does not have the shape that ``reshape`` tells.
    """
    if not spec.reshaped_outputs:
        return outputs
    return [
        tensor.reshaped(_reshaped(spec, spec.outputs[tensor.name], tensor.shape, inward=False))
        if tensor.name in spec.reshaped_outputs
        else tensor
        for tensor in outputs
    ]


def _names(spec: ModelSpec, request: InferenceRequest) -> Sequence[str]:
    return spec.output_names if request.outputs is None else [output.name for output in request.outputs]


def _output(spec: ModelSpec, name: str, results: Mapping[str, OutputValue]) -> Tensor:
    value = results.get(name)
    declared = spec.outputs[name]
    if value is None:
        raise InternalError(f"model '{spec.name}' did not return output '{name}'; it returned {sorted(results)}")
    if isinstance(value, Tensor):
        tensor = value if value.name == name else value.renamed(name)
    elif isinstance(value, np.ndarray):
        # BF16 and UINT16 share a host type; the configuration tells which is meant.
        kind = declared.datatype if value.dtype == declared.datatype.numpy else datatypes.from_numpy(value.dtype)
        tensor = Tensor.from_numpy(name, value, kind)
    else:
        # A framework's own tensor: `shape` is an attribute wherever DLPack is spoken, though DLPack does not say so.
        tensor = Tensor.from_dlpack(name, value, declared.datatype, tuple(getattr(value, "shape")))  # noqa: B009
    if tensor.datatype is not declared.datatype:
        raise InternalError(
            f"output '{name}' of model '{spec.name}' has datatype {tensor.datatype}, expected {declared.datatype}"
        )
    if name in spec.reshaped_outputs:
        tensor = tensor.reshaped(_reshaped(spec, declared, tensor.shape, inward=False))
    return tensor


def _reshaped(spec: ModelSpec, declared: TensorSpec, shape: tuple[int, ...], *, inward: bool) -> tuple[int, ...]:
    """``shape`` as the model sees it (inward), or as the caller does.

    Source: Triton model configuration, "Reshape": each -1 of the reshape takes the next variable dimension in order.
    """
    model_dims = declared.reshape if declared.reshape is not None else declared.dims
    source, target = (declared.dims, model_dims) if inward else (model_dims, declared.dims)
    batch = shape[:1] if spec.max_batch_size > 0 else ()
    sizes = shape[len(batch) :]
    variable = [size for dim, size in zip(source, sizes, strict=False) if dim < 0]
    reshaped = (*batch, *(variable.pop(0) if dim < 0 and variable else dim for dim in target))
    # A request's shape was compared with the configuration before; a model's output was not.
    if element_count(reshaped) != element_count(shape):
        raise InternalError(
            f"output tensor shape does not match size of output for '{declared.name}': model '{spec.name}' gave"
            f" {list(shape)}, expected {[-1] * len(batch) + list(source)}"
        )
    return reshaped
