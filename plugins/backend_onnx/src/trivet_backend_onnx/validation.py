"""A configuration checked against the model it belongs to.

The messages are Triton's (``ModelInstanceState::ValidateInputs`` and ``ValidateOutputs`` of its ONNX Runtime backend),
since people search for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trivet.config import ModelConfig
from trivet.datatypes import BF16, BYTES
from trivet.errors import InvalidArgumentError, UnimplementedError
from trivet.signatures import (
    check_datatype,
    check_dims,
    check_ragged,
    find_tensor,
    scheduler_inputs,
    unsupported_type,
)

from trivet_backend_onnx.signature import Signature, TensorSignature


def validate(config: ModelConfig, signature: Signature) -> None:
    """Compare names, datatypes and shapes. Outputs that the configuration does not name are left alone.

    Raises :class:`~trivet.errors.InvalidArgumentError` where they are not the model's, and
    :class:`~trivet.errors.UnimplementedError` for what ONNX Runtime's Python interface cannot carry.
    """
    _validate_inputs(config, signature)
    scattered = {name for batch_output in config.batch_output for name in batch_output.target_name}
    for message in config.output:
        model = find_tensor(message.name, "output", signature.outputs)
        _validate_type(config, message.name, message.data_type, "output", model)
        # What is scattered over the requests takes its shape from them, not from the model.
        if message.name not in scattered:
            # How many keys a map has, no file says.
            _validate_dims(config, message, model, exact=model.form != "maps")
    for state in config.sequence_batching.state:
        taken = find_tensor(state.input_name, "input", signature.inputs | signature.optional_inputs)
        _validate_type(config, state.input_name, state.data_type, "input", taken)
        given = find_tensor(state.output_name, "output", signature.outputs)
        _validate_type(config, state.output_name, state.data_type, "output", given)
    _validate_bfloat16(config, signature)


def _validate_bfloat16(config: ModelConfig, signature: Signature) -> None:
    """BF16 goes in and out as values of ONNX Runtime, one for each tensor, which text and containers cannot be."""
    tensors = signature.inputs | signature.optional_inputs | signature.outputs
    messages: list[Any] = [*config.input, *config.output]
    beside = [tensors[message.name] for message in messages if message.data_type == BF16.config_value]
    if _uses(config.output, BF16.config_value):
        if _uses(config.input, BYTES.config_value):
            raise UnimplementedError(
                f"unable to load model '{config.name}', it has both TYPE_STRING inputs and TYPE_BF16 outputs, which"
                " ONNX Runtime's Python interface cannot carry in one run"
            )
        beside = [tensors[message.name] for message in messages]
    if containers := sorted({model.onnx_type for model in beside if not model.plain}):
        raise UnimplementedError(
            f"unable to load model '{config.name}', it has TYPE_BF16 tensors with or in {', '.join(containers)}, which"
            " ONNX Runtime's Python interface cannot carry in one run"
        )


def _uses(messages: Iterable[Any], data_type: int) -> bool:
    return any(message.data_type == data_type for message in messages)


def _validate_inputs(config: ModelConfig, signature: Signature) -> None:
    required = {name for name, tensor in signature.inputs.items() if not tensor.optional}
    # What the model calls optional may be required of callers all the same.
    may_be_left_out = signature.inputs.keys() - required
    named = {message.name for message in config.input if not message.optional}.union(scheduler_inputs(config))
    named -= may_be_left_out
    if len(named) != len(required):
        missing = [name for name in signature.inputs if name in required - named]
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects {len(named)} inputs, model provides"
            f" {len(required)}" + (f" (not configured: {', '.join(missing)})" if missing else "")
        )
    inputs = signature.inputs | signature.optional_inputs
    for name in scheduler_inputs(config):
        find_tensor(name, "input", inputs)
    for batch_input in config.batch_input:
        for name in batch_input.target_name:
            _validate_type(config, name, batch_input.data_type, "input", inputs[name])
    for message in config.input:
        if message.optional and config.max_batch_size != 0:
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', optional input '{message.name}' is not supported for models"
                " that support batching"
            )
        model = find_tensor(message.name, "input", inputs)
        _validate_type(config, message.name, message.data_type, "input", model)
        if message.allow_ragged_batch:
            if message.optional:
                raise InvalidArgumentError(
                    f"unable to load model '{config.name}', configuration expects model provides input with shape [-1]"
                    f" for ragged input '{message.name}', which is not supported for optional input"
                )
            check_ragged(config, message.name, model)
        else:
            _validate_dims(config, message, model, exact=False)


def _validate_type(config: ModelConfig, name: str, data_type: int, what: str, model: TensorSignature) -> None:
    if what == "input" and model.form in ("map", "maps"):
        raise unsupported_type(config, name, what, model)
    check_datatype(config, name, data_type, what, model)


def _validate_dims(config: ModelConfig, message: Any, model: TensorSignature, *, exact: bool) -> None:
    if model.dims is None and config.max_batch_size == 0 and not (message.dims or message.reshape.shape):
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': a sequence is a tensor whose first dimension is the"
            " number of its elements, but the model configuration specifies no dimensions"
        )
    check_dims(config, message, model, exact=exact)
