"""The part of a model's configuration that every request is checked against, laid out for speed.

Protobuf messages are slow to read and say more than a request needs; this view is made once when the model loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivet.datatypes import BY_CONFIG_VALUE, DataType
from trivet.tensor import element_count

if TYPE_CHECKING:
    from trivet.config import ModelConfig


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output as callers see it. ``dims`` exclude the batch dimension; -1 is any size."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    """What the model itself sees in place of ``dims``; ``None`` for the same."""
    optional: bool = False
    is_shape_tensor: bool = False
    allow_ragged_batch: bool = False
    label_filename: str = ""
    byte_size: int = 0
    """Bytes of one entry of the batch; 0 where that varies, with the shape or because the elements are ``BYTES``."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Inputs and outputs of a model in the configuration's order."""

    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    output_names: tuple[str, ...]
    max_batch_size: int
    """0: the model does not batch and shapes have no batch dimension."""
    decoupled: bool
    reshaped_inputs: frozenset[str]
    reshaped_outputs: frozenset[str]

    @classmethod
    def from_config(cls, config: ModelConfig) -> ModelSpec:
        """The view of a complete and validated configuration."""
        inputs = {spec.name: spec for spec in _tensors(config.input)}
        outputs = {spec.name: spec for spec in _tensors(config.output)}
        return cls(
            name=config.name,
            inputs=inputs,
            outputs=outputs,
            output_names=tuple(outputs),
            max_batch_size=config.max_batch_size,
            decoupled=config.model_transaction_policy.decoupled,
            reshaped_inputs=frozenset(name for name, spec in inputs.items() if spec.reshape is not None),
            reshaped_outputs=frozenset(name for name, spec in outputs.items() if spec.reshape is not None),
        )


def _tensors(messages: Iterable[Any]) -> Iterable[TensorSpec]:
    for message in messages:
        yield TensorSpec(
            name=message.name,
            datatype=BY_CONFIG_VALUE[message.data_type],
            dims=tuple(message.dims),
            reshape=tuple(message.reshape.shape) if message.HasField("reshape") else None,
            # Outputs have neither `optional` nor `allow_ragged_batch`, inputs have no labels.
            optional=getattr(message, "optional", False),
            is_shape_tensor=message.is_shape_tensor,
            allow_ragged_batch=getattr(message, "allow_ragged_batch", False),
            label_filename=getattr(message, "label_filename", ""),
            byte_size=0
            if -1 in message.dims
            else element_count(message.dims) * BY_CONFIG_VALUE[message.data_type].itemsize,
        )
