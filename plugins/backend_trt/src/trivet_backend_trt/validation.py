"""A configuration checked against the plan it belongs to, in the words of Triton's tensorrt_backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.config import ModelConfig
from trivet.datatypes import BY_CONFIG_VALUE
from trivet.errors import InvalidArgumentError
from trivet.signatures import model_dims

from trivet_backend_trt.profiles import Profile
from trivet_backend_trt.signature import Signature, TensorSignature


def validate(config: ModelConfig, signature: Signature, profiles: Sequence[Profile], instance: str) -> None:
    """Compare names, datatypes, shapes, formats and the batch size with what an instance's profiles take.

    Outputs that the configuration does not name are left alone. Raises
    :class:`~trivet.errors.InvalidArgumentError` where something is not the plan's.
    """
    _validate_batch_size(config, profiles, instance)
    described: dict[str, int | None] = {}
    for message in config.input:
        if message.optional:
            raise _unable(config, f"optional input '{message.name}' is not supported: a plan needs all of its inputs")
        tensor = _find(config, message.name, "input", signature.inputs)
        described[message.name] = message.data_type
        _validate_tensor(config, message, tensor, "input")
    described |= _scheduler_inputs(config)
    for name, data_type in described.items():
        _validate_type(config, name, data_type, _find(config, name, "input", signature.inputs), "input")
    missing = [name for name in signature.inputs if name not in described]
    if missing:
        raise _unable(
            config,
            f"configuration expects {len(described)} inputs, model provides {len(signature.inputs)} (not configured:"
            f" {', '.join(missing)})",
        )
    scattered = {name for batch_output in config.batch_output for name in batch_output.target_name}
    for output in config.output:
        tensor = _find(config, output.name, "output", signature.outputs)
        _validate_type(config, output.name, output.data_type, tensor, "output")
        # What is scattered over the requests takes its shape from them, not from the model.
        if output.name not in scattered:
            _validate_tensor(config, output, tensor, "output")
    for state in config.sequence_batching.state:
        tensor = _find(config, state.output_name, "output", signature.outputs)
        _validate_type(config, state.output_name, state.data_type, tensor, "output")


def _scheduler_inputs(config: ModelConfig) -> dict[str, int | None]:
    """Inputs that no request has, since a scheduler makes them, with the datatype where the configuration gives one."""
    sequence = config.sequence_batching
    return {
        **{control.name: None for control in sequence.control_input},
        **{state.input_name: state.data_type for state in sequence.state},
        **{name: described.data_type for described in config.batch_input for name in described.target_name},
    }


def _validate_batch_size(config: ModelConfig, profiles: Sequence[Profile], instance: str) -> None:
    allowed = max((profile.max_batch_size() or 0 for profile in profiles), default=0)
    if config.max_batch_size > allowed:
        raise InvalidArgumentError(
            f"unexpected configuration maximum batch size {config.max_batch_size} for '{instance}' of model"
            f" '{config.name}', "
            + (f"its profiles take at most {allowed}" if allowed else "the plan has no dimension that varies")
        )


def _validate_type(config: ModelConfig, name: str, data_type: int | None, tensor: TensorSignature, what: str) -> None:
    if tensor.datatype is None:
        raise _unable(config, f"unsupported type {tensor.trt_type} for {what} '{name}'")
    if data_type is not None and BY_CONFIG_VALUE[data_type] is not tensor.datatype:
        raise _unable(
            config,
            f"configuration expects datatype {BY_CONFIG_VALUE[data_type].config_name} for {what} '{name}', model"
            f" provides {tensor.datatype.config_name}",
        )


def _validate_tensor(config: ModelConfig, message: Any, tensor: TensorSignature, what: str) -> None:
    if message.is_shape_tensor != tensor.is_shape_tensor:
        is_one = "a shape tensor" if tensor.is_shape_tensor else "no shape tensor"
        raise _unable(
            config,
            f"{what} '{message.name}' is {is_one} in the model, but the configuration says is_shape_tensor:"
            f" {str(message.is_shape_tensor).lower()}",
        )
    if message.is_non_linear_format_io == tensor.linear:
        raise _unable(
            config,
            f"{what} '{message.name}' uses the format '{tensor.format}', but the configuration says"
            f" is_non_linear_format_io: {str(message.is_non_linear_format_io).lower()}",
        )
    if "Stride %" in tensor.format:
        raise _unable(
            config,
            f"{what} '{message.name}' has the format '{tensor.format}', which pads rows; that is not supported: build"
            " the plan for linear inputs and outputs",
        )
    if tensor.padded_dim >= 0 and tensor.dims[tensor.padded_dim] % tensor.vector:
        raise _unable(
            config,
            f"{what} '{message.name}' has the format '{tensor.format}', which pads dimension {tensor.padded_dim} of"
            f" {_text(tensor.dims)} to a multiple of {tensor.vector}; that is not supported: build the plan for linear"
            " inputs and outputs",
        )
    if not (what == "input" and message.allow_ragged_batch):
        _validate_dims(config, message, tensor)


def _validate_dims(config: ModelConfig, message: Any, tensor: TensorSignature) -> None:
    dims = model_dims(message)
    batches = config.max_batch_size > 0
    if not tensor.dims:
        if any(dim != 1 for dim in dims):
            raise _unable(
                config,
                f"scalar tensor '{message.name}' should only provide 1 in the model configuration, not {_text(dims)}",
            )
        return
    if tensor.is_shape_tensor:
        # Its first value is the batch, which nobody gives.
        full = (dims[0] + 1, *dims[1:]) if batches and dims and dims[0] >= 0 and message in config.input else dims
    else:
        full = (-1, *dims) if batches else dims
    if batches and not tensor.is_shape_tensor and tensor.dims[0] != -1:
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': for the model to support batching the first dimension"
            f" must be -1; but shape expected by the model is {_text(tensor.dims)}"
        )
    fits = len(full) == len(tensor.dims) and all(
        -1 in (mine, theirs) or mine == theirs for mine, theirs in zip(full, tensor.dims, strict=True)
    )
    if not fits:
        batch = " (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape)"
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': the model expects {len(tensor.dims)} dimensions (shape"
            f" {_text(tensor.dims)}) but the model configuration specifies {len(full)} dimensions (shape"
            f" {_text(full)}){batch if batches else ''}"
        )


def _find(config: ModelConfig, name: str, what: str, known: Mapping[str, TensorSignature]) -> TensorSignature:
    if name not in known:
        raise InvalidArgumentError(
            f"unexpected inference {what} '{name}' for model '{config.name}', allowed {what}s are:"
            f" {', '.join(sorted(known))}"
        )
    return known[name]


def _unable(config: ModelConfig, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"unable to load model '{config.name}', {problem}")


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
