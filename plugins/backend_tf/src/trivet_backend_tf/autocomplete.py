"""Filling in what a configuration leaves out, from the signature of a SavedModel.

Source: README of Triton's tensorflow_backend, "Auto-Complete Model Configuration", and its ``AutoCompleteHelper``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from trivet.config import ModelConfig
from trivet.datatypes import DataType
from trivet.errors import InvalidArgumentError
from trivet.signatures import add_tensor, batching_hint, can_batch, complete_max_batch_size, scheduler_inputs, set_dims

from trivet_backend_tf.signature import Signature, TensorInfo


def complete(config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger) -> None:
    """Fill in ``max_batch_size``, ``dynamic_batching``, and of inputs and outputs what is missing.

    Inputs that are not there are added; outputs where there are none. Raises
    :class:`~trivet.errors.InvalidArgumentError` for a ``max_batch_size`` that the model cannot have, and tensors that
    cannot be described.
    """
    batches = _batches(config, signature)
    complete_max_batch_size(config, math.inf if batches else 0, default_max_batch_size, logger)
    made = scheduler_inputs(config)
    given = {message.name for message in config.input}
    _fill_in(config, config.input, "input", signature.inputs)
    _add(
        config,
        config.input,
        "input",
        (
            info
            for name, info in signature.inputs.items()
            if name not in given and name not in made and not (given and info.optional)
        ),
    )
    _fill_in(config, config.output, "output", signature.outputs)
    if not config.output:
        taken = {state.output_name for state in config.sequence_batching.state}
        _add(config, config.output, "output", (i for name, i in signature.outputs.items() if name not in taken))


def _batches(config: ModelConfig, signature: Signature) -> bool:
    """Whether the model is to be served in batches.

    It can where all tensors have a first dimension of any size, which may still be no batch: where the configuration
    says nothing, the number of dimensions that it gives to a tensor tells. Where it says that the model batches, what
    is served decides, and a tensor of any rank can be one of a batch.
    """
    if config.max_batch_size > 0:
        named = {message.name for message in config.output}
        served = [info for name, info in signature.outputs.items() if name in named or not named]
        if not can_batch(info for info in (*signature.inputs.values(), *served) if info.dims is not None):
            raise InvalidArgumentError(
                f"unable to autofill for '{config.name}', configuration specified max-batch {config.max_batch_size} but"
                " model signature does not support batching"
            )
        return True
    able = can_batch((*signature.inputs.values(), *signature.outputs.values()))
    return able and batching_hint(config, signature.inputs, signature.outputs) is not False


def _fill_in(config: ModelConfig, messages: Iterable[Any], what: str, known: dict[str, TensorInfo]) -> None:
    """Datatype and shape of tensors that are named without them."""
    for message in messages:
        info = known.get(message.name)
        if info is None:
            continue
        if not message.data_type:
            message.data_type = _datatype(config, what, info).config_value
        if not message.dims and not message.HasField("reshape"):
            set_dims(message, _dims(config, info), batches=config.max_batch_size > 0)


def _add(config: ModelConfig, target: Any, what: str, tensors: Iterable[TensorInfo]) -> None:
    for info in tensors:
        datatype = _datatype(config, what, info)
        add_tensor(target, info.name, datatype, _dims(config, info), batches=config.max_batch_size > 0)


def _datatype(config: ModelConfig, what: str, info: TensorInfo) -> DataType:
    if info.datatype is None:
        raise InvalidArgumentError(
            f"unable to autofill for '{config.name}': unable to process {what} '{info.name}', unsupported datatype"
            f" '{info.framework_type}'"
            + ("; name the outputs that you want in config.pbtxt" if what == "output" else "")
        )
    return info.datatype


def _dims(config: ModelConfig, info: TensorInfo) -> tuple[int, ...]:
    if info.dims is None:
        raise InvalidArgumentError(
            f"unable to autofill for '{config.name}': the rank of model tensor '{info.name}' is unknown; describe it in"
            " config.pbtxt"
        )
    return info.dims
