"""Implicit state: tensors that the server keeps for a sequence between its requests.

Source: Triton's user guide, "Implicit State Management" and "State Initialization". A state is an output of the model
that goes back in as an input with the sequence's next request. It is passed on by reference, from whatever memory it is
in; ``use_same_buffer_for_input_output`` and ``use_growable_memory`` ask for no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from trivet.datatypes import BY_CONFIG_VALUE, BYTES, DataType
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor, element_count, object_array

if TYPE_CHECKING:
    from trivet.config import ModelConfig

FOLDER = "initial_state"


class States:
    """The states of one model: what a sequence begins with, and which outputs become which inputs."""

    def __init__(self, config: ModelConfig, model_path: Path) -> None:
        """``model_path`` is the model's folder, whose ``initial_state/`` has the files that the configuration names.

        Raises :class:`~trivet.errors.InvalidArgumentError` where an initial state is not what its state can be.
        """
        states = config.sequence_batching.state
        batched = config.max_batch_size > 0
        self.initial: Mapping[str, Tensor] = {
            state.input_name: _initial(state, batched, model_path / FOLDER) for state in states
        }
        """What a sequence's first request gets, by input name."""
        self.outputs: Mapping[str, DataType] = {state.output_name: BY_CONFIG_VALUE[state.data_type] for state in states}
        """The outputs that are wanted of every step."""
        self._inputs = {state.output_name: state.input_name for state in states}
        self.variable = any(dim < 0 for state in states for dim in state.dims)
        """Whether sequences may have states of different shapes."""

    def __bool__(self) -> bool:
        return bool(self.outputs)

    def following(self, before: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The states after a step: those that it gave, and the others as they were."""
        return {
            **before,
            **{self._inputs[name]: tensor.renamed(self._inputs[name]) for name, tensor in results.items()},
        }


def zeros(name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
    """Zeros, or empty strings, that nobody can write to."""
    if datatype is BYTES:
        return Tensor.from_numpy(name, object_array([b""] * element_count(shape), shape))
    array = np.zeros(shape, datatype.numpy)
    array.flags.writeable = False
    return Tensor.from_numpy(name, array, datatype)


def _initial(state: Any, batched: bool, folder: Path) -> Tensor:
    name, datatype = state.input_name, BY_CONFIG_VALUE[state.data_type]
    if state.use_growable_memory and not state.use_same_buffer_for_input_output:
        raise InvalidArgumentError(
            "In order to 'use_growable_memory', you must also enable 'use_same_buffer_for_input_output' for state input"
            f" name '{name}'."
        )
    batch = (1,) if batched else ()
    if not state.initial_state:
        # Triton leaves such a state as it finds the memory, for models that look at START; zeros are as good.
        return zeros(name, datatype, (*batch, *(1 if dim < 0 else dim for dim in state.dims)))
    [initial] = state.initial_state
    shape = (*batch, *initial.dims)
    for dim, state_dim in zip(initial.dims, state.dims, strict=True):
        if dim < 0:
            raise InvalidArgumentError(
                f"'initial_state' field for state input name '{name}' contains variable dimensions."
            )
        if state_dim not in (-1, dim):
            raise InvalidArgumentError(
                f"'initial_state' dim for input name '{name}' doesn't match 'state' dim description. {dim} !="
                f" {state_dim}"
            )
    match initial.WhichOneof("state_data"):
        case "zero_data":
            return zeros(name, datatype, shape)
        case "data_file":
            return _from_file(name, datatype, shape, folder / initial.data_file)
        case _:
            raise InvalidArgumentError(f"initial_state setting expects state '{name}' to have state_data set")


def _from_file(name: str, datatype: DataType, shape: tuple[int, ...], path: Path) -> Tensor:
    data = path.read_bytes()
    if datatype is not BYTES:
        size = element_count(shape) * datatype.itemsize
        if len(data) < size:
            raise InvalidArgumentError(
                f"initial_state setting expects {size} bytes, but the data provided from {path.name} only has"
                f" {len(data)} bytes."
            )
        data = data[:size]
    tensor = Tensor.from_wire(name, datatype, shape, data)
    tensor.numpy()  # decoded now, so that text that is not laid out as such fails the load and no request
    return tensor
