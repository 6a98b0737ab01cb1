"""Which requests can share a batch: those with equal keys.

Source: Triton's model configuration, "Ragged Batching" and "Shape Tensors".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING

from trivet_scheduler_dynamic.likeness import padded_key

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec
    from trivet.inference import InferenceRequest

Key = Callable[["InferenceRequest"], Hashable]


def batch_key(spec: ModelSpec) -> Key | None:
    """The function that gives a request's key; ``None`` where all requests of the model fit together.

    What can differ between two valid requests: the shape of an input with variable dimensions (beside the batch
    dimension, and unless the model takes it ragged), the values of a shape tensor, and which optional inputs are there.
    Of padded inputs it is enough that their sizes are alike.
    """
    padding = spec.layout.padding if spec.layout is not None else None
    if padding is None:
        return _exact_key(spec, ())
    exact = _exact_key(spec, padding.axes)
    alike = padded_key(padding)
    if exact is None:
        return alike

    def both(request: InferenceRequest) -> Hashable:
        return alike(request), exact(request)

    return both


def _exact_key(spec: ModelSpec, padded: Collection[str]) -> Key | None:
    """What must be equal of all inputs but the padded ones."""
    first = 1 if spec.max_batch_size > 0 else 0
    shapes = [
        name
        for name, tensor in spec.inputs.items()
        if -1 in tensor.dims and not tensor.allow_ragged_batch and not tensor.is_shape_tensor
        if name not in padded
    ]
    values = [name for name, tensor in spec.inputs.items() if tensor.is_shape_tensor]
    optional = any(tensor.optional for tensor in spec.inputs.values())
    if not (shapes or values or optional):
        return None
    if not (values or optional):
        if len(shapes) == 1:
            (name,) = shapes

            def one_shape(request: InferenceRequest) -> Hashable:
                return request.inputs[name].shape[first:]

            return one_shape

        def all_shapes(request: InferenceRequest) -> Hashable:
            inputs = request.inputs
            return tuple([inputs[name].shape[first:] for name in shapes])

        return all_shapes

    def everything(request: InferenceRequest) -> Hashable:
        inputs = request.inputs
        # Names are sorted as two clients may give the same inputs in different order.
        return (
            tuple(sorted(inputs)) if optional else (),
            tuple([inputs[name].shape[first:] for name in shapes if name in inputs]),
            tuple([_contents(request, name) for name in values if name in inputs]),
        )

    return everything


def _contents(request: InferenceRequest, name: str) -> tuple[tuple[int, ...], bytes]:
    tensor = request.inputs[name]
    return tensor.shape, bytes(tensor.wire())
