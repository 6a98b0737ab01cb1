"""``reshape`` of a model configuration: tensors as callers see them into tensors as the model does, and back.

Nothing is copied: both are views of the same memory. Runs on an instance's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.errors import InternalError
from trivet.tensor import Tensor, element_count

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec, TensorSpec


def reshape_inputs(spec: ModelSpec, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``inputs`` in the shapes that the model wants; the same object where that makes no difference."""
    if not spec.reshaped_inputs:
        return inputs
    return {
        name: tensor.reshaped(model_shape(spec, name, tensor.shape)) if name in spec.reshaped_inputs else tensor
        for name, tensor in inputs.items()
    }


def model_shape(spec: ModelSpec, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the model sees an input that has ``shape`` in a request."""
    return _reshaped(spec, spec.inputs[name], shape, inward=True) if name in spec.reshaped_inputs else shape


def reshape_output(spec: ModelSpec, tensor: Tensor) -> Tensor:
    """A model's output in the shape that callers see.

    Raises :class:`~trivet.errors.InternalError` where it does not have the shape that ``reshape`` tells.
    """
    if tensor.name not in spec.reshaped_outputs:
        return tensor
    return tensor.reshaped(_reshaped(spec, spec.outputs[tensor.name], tensor.shape, inward=False))


def reshape_outputs(spec: ModelSpec, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """:func:`reshape_output` for all; the same object where that makes no difference."""
    if not spec.reshaped_outputs:
        return outputs
    return [reshape_output(spec, tensor) for tensor in outputs]


def _reshaped(spec: ModelSpec, declared: TensorSpec, shape: tuple[int, ...], *, inward: bool) -> tuple[int, ...]:
    """``shape`` as the model sees it (inward), or as the caller does.

    Source: Triton model configuration, "Reshape": each -1 of the reshape takes the next variable dimension in order.
    """
    model_dims = declared.reshape if declared.reshape is not None else declared.dims
    source, target = (declared.dims, model_dims) if inward else (model_dims, declared.dims)
    batch = shape[:1] if spec.max_batch_size > 0 and not declared.is_shape_tensor else ()
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
