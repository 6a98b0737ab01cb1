"""Control inputs: what a model is told about the step of a sequence that it executes.

Source: Triton's user guide, "Stateful Models", "Control Inputs". Values and shapes are those that its sequence batcher
gives: ``[1]`` per request, with the batch dimension before it where the model batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from trivet.config.model_config_pb2 import ModelSequenceBatching
from trivet.datatypes import BOOL, BY_CONFIG_VALUE, BYTES, FP32, INT32, DataType
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor, object_array

if TYPE_CHECKING:
    from trivet.config import ModelConfig

_Control = ModelSequenceBatching.Control
_KINDS = {
    _Control.CONTROL_SEQUENCE_START: "start",
    _Control.CONTROL_SEQUENCE_END: "end",
    _Control.CONTROL_SEQUENCE_READY: "ready",
}


class Controls:
    """The control tensors of one model. Made once; flags of the same value share one read-only tensor."""

    def __init__(self, config: ModelConfig) -> None:
        self._model = config.name
        self._shape = (1, 1) if config.max_batch_size > 0 else (1,)
        self._id: tuple[str, DataType] | None = None
        flags: list[tuple[str, str, DataType, tuple[Any, Any]]] = []
        for control_input in config.sequence_batching.control_input:
            for control in control_input.control:
                if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
                    self._id = (control_input.name, BY_CONFIG_VALUE[control.data_type])
                else:
                    flags.append((control_input.name, _KINDS[control.kind], *_false_true(control)))
        self._steps = {
            (start, end): self._flags(flags, start=start, end=end, ready=True)
            for start in (False, True)
            for end in (False, True)
        }
        self.not_ready: Mapping[str, Tensor] = {
            **self._flags(flags, start=False, end=False, ready=False),
            **self.correlation_id(""),
        }
        """The controls of a slot that has no request in a batch: everything false, and no correlation ID."""

    def step(self, start: bool, end: bool) -> Mapping[str, Tensor]:
        """Start, end and ready of a request that is executed."""
        return self._steps[start, end]

    def correlation_id(self, value: int | str) -> Mapping[str, Tensor]:
        """The correlation ID, where the model wants it; "" and 0 stand for none.

        An integer is cut to the control's size, as Triton does it, and is its digits where the control is text.
        """
        if self._id is None:
            return {}
        name, datatype = self._id
        if datatype is BYTES:
            text = str(value).encode(errors="replace") if value else b""
            return {name: Tensor.from_numpy(name, object_array([text], self._shape))}
        bits = int(value or 0) & ((1 << 8 * datatype.itemsize) - 1)
        raw = bits.to_bytes(datatype.itemsize, "little")
        return {name: Tensor.from_numpy(name, np.frombuffer(raw, datatype.numpy).reshape(self._shape))}

    def check(self, value: int | str) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for an ID that the model's control cannot carry."""
        if isinstance(value, str) and self._id is not None and self._id[1] is not BYTES:
            name, datatype = self._id
            raise InvalidArgumentError(
                f"inference request for sequence {value} to model '{self._model}' has a string as correlation ID, but"
                f" its control input '{name}' has datatype {datatype.config_name}; use an integer, or TYPE_STRING"
            )

    def _flags(self, flags: list[tuple[str, str, DataType, tuple[Any, Any]]], **values: bool) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, kind, datatype, false_true in flags:
            array = np.full(self._shape, false_true[values[kind]], datatype.numpy)
            array.flags.writeable = False
            tensors[name] = Tensor.from_numpy(name, array)
        return tensors


def _false_true(control: Any) -> tuple[DataType, tuple[Any, Any]]:
    if control.int32_false_true:
        return INT32, tuple(control.int32_false_true)
    if control.fp32_false_true:
        return FP32, tuple(control.fp32_false_true)
    return BOOL, tuple(control.bool_false_true)
