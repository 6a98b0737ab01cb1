"""A configuration checked against what a file tells of its tensors: all of it in a ``torch.export`` program, else none.

Only what cannot be is refused: another element type, another number of dimensions, another fixed size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.config import ModelConfig
from trivet.datatypes import BY_CONFIG_VALUE
from trivet.errors import InvalidArgumentError
from trivet.signatures import another_type, model_dims, shape_text

from trivet_backend_torch.naming import place_of
from trivet_backend_torch.nesting import Path
from trivet_backend_torch.signature import SCALARS, Argument, Signature, TensorSpec


def validate(
    config: ModelConfig,
    signature: Signature,
    inputs: Mapping[str, Argument],
    outputs: Mapping[str, int | str | Path],
) -> None:
    """``inputs`` and ``outputs`` say what of the network each tensor of the configuration is.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the network cannot take or give it.
    """
    for message in config.input:
        argument = inputs[message.name]
        if argument.spec is not None and argument.kind not in SCALARS:
            _check(config, message, "input", argument.spec)
    if len(signature.output_specs) == len(signature.outputs or ()):
        known = dict(zip(map(place_of, signature.outputs or ()), signature.output_specs, strict=True))
        # What is scattered over the requests takes its shape from them, not from the model.
        scattered = {name for batch_output in config.batch_output for name in batch_output.target_name}
        for output in config.output:
            spec = known.get(outputs[output.name])
            if spec is not None and output.name not in scattered:
                _check(config, output, "output", spec)


def _check(config: ModelConfig, message: Any, what: str, spec: TensorSpec) -> None:
    configured = BY_CONFIG_VALUE[message.data_type]
    if spec.datatype is not None and configured is not spec.datatype:
        raise another_type(config, message.name, configured, what, spec.datatype)
    batches = config.max_batch_size > 0
    shape = (config.max_batch_size, *model_dims(message)) if batches else model_dims(message)
    if not spec.dims or (what == "input" and message.allow_ragged_batch):
        return  # a scalar takes the shape of the configuration
    if len(shape) != len(spec.dims) or any(
        mine != theirs for mine, theirs in zip(shape, spec.dims, strict=True) if mine > 0 and theirs > 0
    ):
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': the model expects shape {shape_text(spec.dims)} but the"
            f" model configuration specifies {shape_text(shape)}"
            + (", of which the first is max_batch_size" if batches else "")
        )
