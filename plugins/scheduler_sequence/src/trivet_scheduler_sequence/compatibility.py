"""Which requests can share a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec
    from trivet.inference import InferenceRequest
    from trivet.tensor import Tensor


class Compatibility:
    """Tells requests apart whose inputs cannot be concatenated, by what can differ between them at all."""

    def __init__(self, spec: ModelSpec, variable_states: bool) -> None:
        inputs = spec.inputs.values()
        self._names = any(tensor.optional for tensor in inputs)
        self._inputs = frozenset(spec.inputs)
        self._shapes = tuple(
            tensor.name
            for tensor in inputs
            if -1 in tensor.dims and not tensor.allow_ragged_batch and not tensor.is_shape_tensor
        )
        self._contents = tuple(tensor.name for tensor in inputs if tensor.is_shape_tensor)
        self._states = variable_states
        self._varies = bool(self._names or self._shapes or self._contents or self._states)

    def key(self, request: InferenceRequest, states: Mapping[str, Tensor]) -> Hashable:
        """Equal for requests that can share a batch. ``states`` are those that the request will be given."""
        if not self._varies:
            return None
        inputs = request.inputs
        return (
            frozenset(name for name in inputs if name in self._inputs) if self._names else None,
            tuple([inputs[name].shape[1:] if name in inputs else None for name in self._shapes]),
            tuple([bytes(inputs[name].wire()) if name in inputs else None for name in self._contents]),
            tuple([tensor.shape[1:] for tensor in states.values()]) if self._states else None,
        )
