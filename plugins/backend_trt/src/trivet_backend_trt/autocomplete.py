"""Filling in what a configuration leaves out, from the plan.

Source: Triton's tensorrt_backend (``AutoCompleteConfigHelper``). A plan whose profile lets the first dimension of every
input vary can batch, as far as the profiles that the instance groups name allow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import batching_hint, complete_max_batch_size, scheduler_inputs, set_dims

from trivet_backend_trt.profiles import select
from trivet_backend_trt.signature import Signature, TensorSignature


def complete(config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger) -> None:
    """Fill in ``max_batch_size``, ``dynamic_batching``, ``input`` and ``output`` where they are missing.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a ``max_batch_size`` that the plan cannot have, and for
    datatypes that requests cannot carry.
    """
    _complete_max_batch_size(config, signature, default_max_batch_size, logger)
    given = scheduler_inputs(config)
    if not config.input:
        _add(config, config.input, "input", (own for own in signature.inputs.values() if own.name not in given))
    if not config.output:
        taken = {state.output_name for state in config.sequence_batching.state}
        _add(config, config.output, "output", (own for own in signature.outputs.values() if own.name not in taken))


def _complete_max_batch_size(
    config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger
) -> None:
    allowed = most_rows(config, signature)
    # The names of a plan's tensors are unique among inputs and outputs.
    tensors = {name: own for name, own in (signature.inputs | signature.outputs).items() if not own.is_shape_tensor}
    hint = batching_hint(config, tensors, tensors)
    if hint and not allowed:
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': model tensor shape configuration hints for dynamic batching"
            " but the underlying engine doesn't support batching"
        )
    if config.max_batch_size > allowed:
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': configuration specified max-batch {config.max_batch_size} but"
            f" TensorRT engine only supports max-batch {allowed}"
        )
    if config.max_batch_size == 0 and allowed and hint is False:
        logger.warning("the specified dimensions in model config for %s hint that batching is unavailable", config.name)
        allowed = 0
    complete_max_batch_size(config, allowed, default_max_batch_size or allowed, logger)


def most_rows(config: ModelConfig, signature: Signature) -> int:
    """The largest batch of the profiles that the instance groups name; 0 where the plan does not batch."""
    batched = [own for own in (*signature.inputs.values(), *signature.outputs.values()) if not own.is_shape_tensor]
    if not batched or any(own.dims[:1] != (-1,) for own in batched):
        return 0
    names = [name for group in config.instance_group for name in group.profile]
    return max(profile.max_batch_size() or 0 for profile in select(signature.profiles, names, config.name))


def _add(config: ModelConfig, target: Any, what: str, tensors: Iterable[TensorSignature]) -> None:
    batches = config.max_batch_size > 0
    for own in tensors:
        if own.datatype is None:
            raise InvalidArgumentError(
                f"autofill failed for model '{config.name}': unsupported datatype {own.trt_type} for {what}"
                f" '{own.name}'"
            )
        added = target.add(name=own.name, data_type=own.datatype.config_value, is_shape_tensor=own.is_shape_tensor)
        added.is_non_linear_format_io = not own.linear
        if own.is_shape_tensor:
            # Of a batch its first value is the number of rows, which no caller gives.
            added.dims.extend([own.dims[0] - 1] if batches and what == "input" and own.dims else own.dims or (1,))
            continue
        set_dims(added, own.dims, batches=batches)
