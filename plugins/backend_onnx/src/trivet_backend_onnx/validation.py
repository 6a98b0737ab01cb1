"""A configuration checked against the model it belongs to.

The messages are Triton's (``ModelInstanceState::ValidateInputs`` and ``ValidateOutputs`` of its ONNX Runtime backend),
since people search for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trivet.config import ModelConfig
from trivet.datatypes import BF16, BY_CONFIG_VALUE, BYTES
from trivet.errors import InvalidArgumentError, UnimplementedError

from trivet_backend_onnx.signature import Signature, TensorSignature


def validate(config: ModelConfig, signature: Signature) -> None:
    """Compare names, datatypes and shapes. Outputs that the configuration does not name are left alone.

    Raises :class:`~trivet.errors.InvalidArgumentError` where they are not the model's, and
    :class:`~trivet.errors.UnimplementedError` for what ONNX Runtime's Python interface cannot carry.
    """
    _validate_inputs(config, signature)
    scattered = {name for batch_output in config.batch_output for name in batch_output.target_name}
    for message in config.output:
        model = _find(message.name, "output", signature.outputs)
        _validate_type(config, message.name, message.data_type, "output", model)
        # What is scattered over the requests takes its shape from them, not from the model.
        if message.name not in scattered:
            # How many keys a map has, no file says.
            _validate_dims(config, message, model, exact=model.form != "maps")
    for state in config.sequence_batching.state:
        taken = _find(state.input_name, "input", signature.inputs | signature.optional_inputs)
        _validate_type(config, state.input_name, state.data_type, "input", taken)
        given = _find(state.output_name, "output", signature.outputs)
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
    named = {message.name for message in config.input if not message.optional} | scheduler_inputs(config)
    named -= may_be_left_out
    if len(named) != len(required):
        missing = [name for name in signature.inputs if name in required - named]
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects {len(named)} inputs, model provides"
            f" {len(required)}" + (f" (not configured: {', '.join(missing)})" if missing else "")
        )
    inputs = signature.inputs | signature.optional_inputs
    for name in scheduler_inputs(config):
        _find(name, "input", inputs)
    for batch_input in config.batch_input:
        for name in batch_input.target_name:
            _validate_type(config, name, batch_input.data_type, "input", inputs[name])
    for message in config.input:
        if message.optional and config.max_batch_size != 0:
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', optional input '{message.name}' is not supported for models"
                " that support batching"
            )
        model = _find(message.name, "input", inputs)
        _validate_type(config, message.name, message.data_type, "input", model)
        if message.allow_ragged_batch:
            if message.optional:
                raise InvalidArgumentError(
                    f"unable to load model '{config.name}', configuration expects model provides input with shape [-1]"
                    f" for ragged input '{message.name}', which is not supported for optional input"
                )
            if model.dims != (-1,):
                raise InvalidArgumentError(
                    f"unable to load model '{config.name}', configuration expects model provides input with shape [-1]"
                    f" for ragged input '{message.name}', model provides"
                    f" {model.onnx_type if model.dims is None else _text(model.dims)}"
                )
        else:
            _validate_dims(config, message, model, exact=False)


def scheduler_inputs(config: ModelConfig) -> set[str]:
    """Inputs that no request has, since a scheduler makes them: sequence controls, states, batch inputs."""
    sequence = config.sequence_batching
    return {
        *(control.name for control in sequence.control_input),
        *(state.input_name for state in sequence.state),
        *(name for batch_input in config.batch_input for name in batch_input.target_name),
    }


def _find(name: str, what: str, known: Mapping[str, TensorSignature]) -> TensorSignature:
    if name not in known:
        raise InvalidArgumentError(
            f"unexpected inference {what} '{name}', allowed {what}s are: {', '.join(sorted(known))}"
        )
    return known[name]


def _validate_type(config: ModelConfig, name: str, data_type: int, what: str, model: TensorSignature) -> None:
    configured = BY_CONFIG_VALUE[data_type]
    if model.datatype is None or (what == "input" and model.form in ("map", "maps")):
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', unsupported type {model.onnx_type} for {what} '{name}'"
        )
    if configured is not model.datatype:
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects datatype {configured.config_name} for {what}"
            f" '{name}', model provides {model.datatype.config_name}"
        )


def _validate_dims(config: ModelConfig, message: Any, model: TensorSignature, *, exact: bool) -> None:
    """``exact`` is for outputs: a variable dimension must be variable in the configuration too.

    A caller would else be told a size that need not come.
    """
    dims = tuple(message.reshape.shape) if message.HasField("reshape") else tuple(message.dims)
    if model.dims is None:
        if not dims and config.max_batch_size == 0:
            raise InvalidArgumentError(
                f"model '{config.name}', tensor '{message.name}': a sequence is a tensor whose first dimension is the"
                " number of its elements, but the model configuration specifies no dimensions"
            )
        return
    if not model.dims:
        if any(dim != 1 for dim in dims):
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', scalar tensor '{message.name}', should only provide 1 in the"
                " model configuration when the model doesn't support batching. Model configuration provided:"
                f" {_text(dims)}."
            )
        return
    if config.max_batch_size > 0:
        if not model.batches:
            raise InvalidArgumentError(
                f"model '{config.name}', tensor '{message.name}': for the model to support batching the shape should"
                " have at least 1 dimension and the first dimension must be -1; but shape expected by the model is"
                f" {_text(model.dims)}"
            )
        full = (-1, *dims)
        says = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit"
            f" tensor shape, making complete shape {_text(full)})"
        )
    else:
        full = dims
        says = f"{len(full)} dimensions (shape {_text(full)})"
    fits = len(full) == len(model.dims) and all(
        mine == theirs or (theirs == -1 and not exact) for mine, theirs in zip(full, model.dims, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': the model expects {len(model.dims)} dimensions (shape"
            f" {_text(model.dims)}) but the model configuration specifies {says}"
        )


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
