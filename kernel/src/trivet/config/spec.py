"""The part of a model's configuration that every request is checked against, laid out for speed.

Protobuf messages are slow to read and say more than a request needs; this view is made once when the model loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivet.config.model_config_pb2 import BatchInput
from trivet.config.padding import Padding, read_padding
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
class BatchInputSpec:
    """Inputs that describe a batch to the model, made from the shapes that one of its inputs has in each request."""

    kind: str
    """The enumerator of ``BatchInput.Kind`` in ``model_config.proto``, e.g. ``BATCH_ELEMENT_COUNT``."""
    targets: tuple[str, ...]
    """Inputs of the model, all of which get the same tensor."""
    datatype: DataType
    """FP32 or INT32."""
    source: str
    """The input that is described."""


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """What of a model is not concatenated and split along the first dimension."""

    ragged_inputs: frozenset[str]
    """All elements of all requests, one request after the other, in one dimension."""
    shape_inputs: frozenset[str]
    """Shape tensors: without a batch dimension, the same for all requests."""
    shape_outputs: frozenset[str]
    """Shape tensors: every request gets the whole."""
    batch_inputs: tuple[BatchInputSpec, ...]
    scattered_outputs: dict[str, str]
    """Outputs whose elements are handed out in the shape that an input has in each request: name to input."""
    padding: Padding | None = None
    """Inputs that are padded where requests differ in shape; ``None`` where there are none."""


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
    layout: BatchLayout | None = None
    """``None`` where all inputs and outputs are concatenated and split along the first dimension."""

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
            layout=_layout(config),
        )


def _layout(config: ModelConfig) -> BatchLayout | None:
    layout = BatchLayout(
        ragged_inputs=frozenset(tensor.name for tensor in config.input if tensor.allow_ragged_batch),
        shape_inputs=frozenset(tensor.name for tensor in config.input if tensor.is_shape_tensor),
        shape_outputs=frozenset(tensor.name for tensor in config.output if tensor.is_shape_tensor),
        batch_inputs=tuple(
            BatchInputSpec(
                kind=BatchInput.Kind.Name(message.kind),
                targets=tuple(message.target_name),
                datatype=BY_CONFIG_VALUE[message.data_type],
                source=message.source_input[0],
            )
            for message in config.batch_input
        ),
        scattered_outputs={
            name: message.source_input[0] for message in config.batch_output for name in message.target_name
        },
        padding=read_padding(config)[0],
    )
    used = (
        layout.ragged_inputs
        or layout.shape_inputs
        or layout.shape_outputs
        or layout.batch_inputs
        or layout.scattered_outputs
        or layout.padding
    )
    return layout if used else None


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
