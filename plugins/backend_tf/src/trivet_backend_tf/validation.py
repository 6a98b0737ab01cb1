"""A configuration checked against the model it belongs to. The messages are Triton's, as people search for them."""

from __future__ import annotations

from typing import Any

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import check_datatype, check_dims, check_ragged, find_tensor, scheduler_inputs

from trivet_backend_tf.signature import Signature, TensorInfo, described


def validate(config: ModelConfig, signature: Signature, *, shapes: bool) -> None:
    """Compare names, datatypes and, for a SavedModel (``shapes``), shapes. Outputs may be left out.

    What a GraphDef says of shapes is how it was drawn, and not always true. Raises
    :class:`~trivet.errors.InvalidArgumentError` where they are not the model's.
    """
    _validate_inputs(config, signature, shapes=shapes)
    scattered = {name for batch_output in config.batch_output for name in batch_output.target_name}
    for message in config.output:
        model = find_tensor(message.name, "output", signature.outputs)
        check_datatype(config, message.name, message.data_type, "output", model)
        # What is scattered over the requests takes its shape from them, not from the model.
        if shapes and message.name not in scattered:
            _validate_dims(config, message, model, exact=True)
    for state in config.sequence_batching.state:
        taken = find_tensor(state.input_name, "input", signature.inputs)
        check_datatype(config, state.input_name, state.data_type, "input", taken)
        given = find_tensor(state.output_name, "output", signature.outputs)
        check_datatype(config, state.output_name, state.data_type, "output", given)


def _validate_inputs(config: ModelConfig, signature: Signature, *, shapes: bool) -> None:
    made = scheduler_inputs(config)
    for message in config.input:
        model = find_tensor(message.name, "input", signature.inputs)
        check_datatype(config, message.name, message.data_type, "input", model)
        if message.optional and not model.optional:
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', input '{message.name}' is optional in the configuration, and"
                " the model needs it: only an input with a default (tf.compat.v1.placeholder_with_default) may be left"
                " out"
            )
        if message.allow_ragged_batch:
            if model.dims is not None:
                check_ragged(config, message.name, model)
        elif shapes:
            _validate_dims(config, message, model, exact=False)
    for name in made:
        find_tensor(name, "input", signature.inputs)
    for batch_input in config.batch_input:
        for name in batch_input.target_name:
            check_datatype(config, name, batch_input.data_type, "input", signature.inputs[name])
    needed = [info for info in signature.inputs.values() if not info.optional]
    configured = {*(message.name for message in config.input), *made}
    missing = [info for info in needed if info.name not in configured]
    if missing:
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects {len(configured)} inputs, model provides"
            f" {len(needed)} (not configured: {described(missing)})"
        )


def _validate_dims(config: ModelConfig, message: Any, model: TensorInfo, *, exact: bool) -> None:
    if model.dims == () and config.max_batch_size > 0:
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': for the model to support batching the shape should"
            " have at least 1 dimension and the first dimension must be -1; but shape expected by the model is []"
        )
    check_dims(config, message, model, exact=exact)
